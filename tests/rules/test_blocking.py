"""Operators whose derivative is zero: counted as blocking, and refused where nothing else carries a cotangent."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback import EXACT, SEMANTIC
from fxpullback.contract.errors import DifferentiateError
from fxpullback.ledger import Ledger

Middle = Callable[[Tensor], Tensor]
TABLE = torch.linspace(-1, 1, 64).reshape(8, 8)


class Net(nn.Module):
    def __init__(self, middle: Middle) -> None:
        super().__init__()
        self.first, self.last, self.middle = nn.Linear(6, 8), nn.Linear(8, 3), middle

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(torch.relu(self.first(x))))  # type: ignore[no-any-return]


def net(middle: Middle) -> Net:
    torch.manual_seed(0)
    return Net(middle).eval()


BESIDE: dict[str, tuple[Middle, str]] = {
    "round": (lambda h: h + torch.round(h), "aten.round"),
    "sign": (lambda h: h * torch.sign(h - 0.2), "aten.sign"),
    "comparison as a number": (lambda h: h * (h > 0.1).float(), "aten.gt.Scalar"),
    "comparison between constants": (lambda h: h + torch.where(h > 0.1, 1.0, 0.0), "aten.gt.Scalar"),
    "whole numbers": (lambda h: h + (h * 10).int().float(), "aten._to_copy"),
    "place of the largest": (lambda h: h + h.max(1, keepdim=True)[1].float(), "getitem"),
    "looked up": (lambda h: h + TABLE[h.argmax(1)], "aten.argmax"),
    "whole quotient": (lambda h: h + torch.div(h, 0.3, rounding_mode="floor"), "aten.div.Tensor_mode"),
    "count": (lambda h: h + torch.count_nonzero(h, 1).float()[:, None], "aten.count_nonzero"),
}

NONE: dict[str, Middle] = {
    "a choice of values": lambda h: torch.where(h > 0.1, h, 0.0),
    "an order of values": lambda h: torch.gather(h, 1, h.argsort(1)),
    "zeros of a shape": lambda h: h + torch.zeros_like(h),
    "straight through": lambda h: h + (torch.round(h) - h).detach(),
}

ONLY: dict[str, tuple[Middle, str]] = {
    "round": (torch.round, "aten.round"),
    "sign": (lambda h: torch.sign(h) * 2 + 1, "aten.sign"),
    "comparison": (lambda h: (h > 0.1).float(), "aten.gt.Scalar"),
    "place of the largest": (lambda h: nn.functional.one_hot(h.argmax(1), 8).float(), "aten.argmax"),
}


@pytest.mark.parametrize("name", BESIDE)
def test_what_blocks_is_a_gate_of_the_ledger_and_counted(name: str) -> None:
    middle, operator = BESIDE[name]
    x = torch.randn(4, 6)
    pb = fxpullback.compile(net(middle), x, rules=EXACT)
    rows = [row for row in pb.ledger.rows if row.verdict == "blocking"]
    assert [(row.operator, row.gate) for row in rows] == [(operator, True)]
    assert rows[0].reason is not None
    assert "its derivative is zero" in rows[0].reason
    assert pb.ledger.sum().endswith(", 1 blocking")
    assert pb.ledger.to_dict()["blocking"] == 1
    assert Ledger.from_dict(pb.ledger.to_dict()) == pb.ledger
    assert "blocking" in str(pb.ledger)

    other = torch.randn(3, 6, requires_grad=True)
    logits = net(middle)(other)
    target = torch.tensor([0, 2, 1])
    logits.gather(1, target[:, None]).sum().backward()
    assert other.grad is not None
    torch.testing.assert_close(pb(other.detach(), target)[1], other.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NONE)
def test_what_only_chooses_blocks_nothing(name: str) -> None:
    pb = fxpullback.compile(net(NONE[name]), torch.randn(4, 6), rules=EXACT)
    assert not [row for row in pb.ledger.rows if row.verdict == "blocking"]
    assert "blocking" not in pb.ledger.sum()
    assert "blocking" not in pb.ledger.to_dict()


def test_gates_that_are_read_through_a_block_alone_are_held_and_not_injected() -> None:
    pb = fxpullback.compile(net(lambda h: h[:, :4].repeat(1, 2) + torch.sigmoid(h).round()), torch.randn(4, 6))
    row = next(row for row in pb.ledger.rows if row.operator == "aten.sigmoid")
    assert (row.verdict, row.injected, row.reason) == ("frozen", False, "blocked by round_1, whose derivative is zero")
    assert pb.verify().passed


@pytest.mark.parametrize("rules", [EXACT, SEMANTIC], ids=lambda rules: str(rules.name))
@pytest.mark.parametrize("name", ONLY)
def test_a_block_on_every_path_is_refused_by_name(name: str, rules: fxpullback.RuleSet) -> None:
    middle, operator = ONLY[name]
    with pytest.raises(DifferentiateError, match="has a derivative of zero") as error:
        fxpullback.compile(net(middle), torch.randn(4, 6), rules=rules)
    assert operator in str(error.value)
    assert "test_blocking.py" in str(error.value)


def test_the_advice_of_the_refusal_works() -> None:
    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return torch.round(x)

        @staticmethod
        def backward(ctx: object, *grads: Tensor) -> Tensor:
            return grads[0]

    pb = fxpullback.compile(net(lambda h: Round.apply(h)), torch.randn(4, 6))
    assert pb.verify().passed
    assert "blocking" not in pb.ledger.sum()


def test_other_ways_to_have_no_path_are_told_apart() -> None:
    with pytest.raises(DifferentiateError, match=r"detach.* detaches it"):
        fxpullback.compile(net(lambda h: h.detach() * 2), torch.randn(4, 6))
    with pytest.raises(DifferentiateError, match="they do not depend on its values"):
        fxpullback.compile(net(lambda h: torch.ones_like(h) * 0.5), torch.randn(4, 6))
    with pytest.raises(DifferentiateError, match="rules hold every path constant: attention"):
        fxpullback.compile(Held().eval(), torch.randn(4, 6))


class Held(nn.Module):
    """Attention on constants: its weights are all that depends on the picture, and a rule holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.register_buffer("table", torch.linspace(-1, 1, 32).reshape(1, 4, 8))

    def forward(self, x: Tensor) -> Tensor:
        table = self.table.expand(x.shape[0], 4, 8)  # type: ignore[operator]
        return self.last(nn.functional.scaled_dot_product_attention(self.first(x)[:, None], table, table)[:, 0])  # type: ignore[no-any-return]
