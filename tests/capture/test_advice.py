"""Messages that tell a rewrite: weights set in the forward, one bag at a time, names to be kept exact. Each works."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import EXACT, SEMANTIC
from fxpullback.contract.errors import CaptureError, RuleError
from tests.helpers import assert_near, draw, pulled_back

Setting = Callable[[nn.Linear], None]


class Setter(nn.Linear):
    """Does something to its weight at every call; the lines are in the subclasses."""

    def set_weight(self) -> None:
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        self.set_weight()
        return super().forward(input)


class ByData(Setter):
    def set_weight(self) -> None:
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.4)


class ByCopy(Setter):
    def set_weight(self) -> None:
        with torch.no_grad():
            self.weight.copy_(torch.renorm(self.weight, 2, 0, 0.4))


class InPlace(Setter):
    def set_weight(self) -> None:
        self.weight.data.clamp_(-0.2, 0.2)


class OneLine(Setter):
    def set_weight(self) -> None:
        with torch.no_grad(): self.weight.data = self.weight.data.clamp(min=-0.1)  # fmt: skip # noqa: E701


class ByItems(Setter):
    def set_weight(self) -> None:
        with torch.no_grad():
            self.weight[0] = 0.5


class OfMore(Setter):
    most = 0.4

    def set_weight(self) -> None:
        self.weight.data = torch.renorm(self.weight.data, 2, 0, self.most)


def _net(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6), nn.Sequential(layer), nn.SiLU(), nn.Linear(4, 3)).double().eval()


def _drawn(kind: type[nn.Linear]) -> nn.Sequential:
    torch.manual_seed(0)
    return _net(kind(6, 4))


def _refused(model: nn.Module, *sizes: int) -> str:
    with pytest.raises(CaptureError) as raised:
        fxpullback.compile(model, draw(2, *sizes))
    return str(raised.value)


def _lines(message: str) -> str:
    """The indented lines of a message: a program."""
    return textwrap.dedent("\n".join(line for line in message.splitlines() if line.startswith("  ")))


@pytest.mark.parametrize("kind", [ByData, ByCopy, InPlace, OneLine])
def test_weights_set_in_the_forward_are_told_with_a_rewrite_that_works(kind: type[Setter]) -> None:
    message = _refused(_drawn(kind), 5)
    assert "the forward sets 1.0.weight while it runs, at test_advice.py:" in message
    model = _net(nn.Linear(6, 4))
    model.load_state_dict(_drawn(kind).state_dict())
    exec(_lines(message), {"torch": torch, "model": model})
    pb = fxpullback.compile(model, draw(2, 5), rules=EXACT, target="cotangent")
    x, ct, original = draw(3, 5, seed=1), draw(3, 3, seed=2), _drawn(kind)
    logits, pullback = pb(x, ct)
    assert_near(logits, original(x).detach(), 1e-12)
    assert_near(pullback, pulled_back(original, x, ct), 1e-12)
    assert pb.verify().passed


@pytest.mark.parametrize("kind", [ByItems, OfMore])
def test_what_cannot_be_quoted_is_told_without(kind: type[Setter]) -> None:
    message = _refused(_drawn(kind), 5)
    assert "the forward sets 1.0.weight while it runs, at test_advice.py:" in message
    assert "return ...  # what that line computes" in message
    assert "register_parametrization(model.get_submodule('1.0'), 'weight', Kept())" in message


class OfInput(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        self.weight.data = self.weight.data * input.mean()
        return super().forward(input)


def test_a_weight_of_the_input_is_told_otherwise() -> None:
    message = _refused(_drawn(OfInput), 5)
    assert "this one is computed of the input" in message
    assert "register_parametrization" not in message


class Ema(nn.Module):
    """Keeps a mean in a buffer, by its data."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(5))
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Any:
        self.mean.data = self.mean.data * 0.9 + 0.1
        return self.head(x - self.mean)


def test_a_buffer_that_is_set_is_no_weight() -> None:
    message = _refused(Ema().double().eval(), 5)
    assert "the forward sets mean while it runs, at test_advice.py:" in message
    assert "register_parametrization" not in message


class Bag(nn.Module):
    """Attention over the instances of one bag, which comes with a leading axis of one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight, self.head = nn.Linear(6, 1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        x = x.squeeze(0)
        return self.head(torch.softmax(self.weight(x).t(), 1) @ x)


class Flattened(Bag):
    def forward(self, x: Tensor) -> Any:
        return self.head(torch.tanh(x.view(1, -1)[:, :6]) + x.view(-1, 4, 6)[:1, 1])


class WithoutBatch(Bag):
    def forward(self, x: Tensor) -> Any:
        return self.head(torch.tanh(x.squeeze(0).t().amax(1)))


@pytest.mark.parametrize("kind", [Bag, WithoutBatch])
@pytest.mark.parametrize("count", [1, 2])
def test_one_bag_at_a_time_is_told_with_a_rewrite_that_works(kind: type[nn.Module], count: int) -> None:
    model = kind().double().eval()
    with pytest.raises(CaptureError, match=r"takes one sample at a time.*at test_advice\.py:\d+") as raised:
        fxpullback.compile(model, draw(count, 4, 6))
    scope: dict[str, Any] = {"torch": torch}
    exec(_lines(str(raised.value)), scope)
    pb = fxpullback.compile(scope["Each"](model).eval(), draw(count, 4, 6), rules=EXACT, target="cotangent")
    x, ct = draw(3, 4, 6, seed=1), draw(3, 3, seed=2)
    logits, pullback = pb(x, ct)
    each = [model(sample[None]).reshape(1, 3) for sample in x]
    assert_near(logits, torch.cat(each).detach(), 1e-12)
    wanted = [pulled_back(lambda s: model(s).reshape(1, 3), x[i : i + 1], ct[i : i + 1]) for i in range(3)]
    assert_near(pullback, torch.cat(wanted), 1e-12)
    assert pb.verify().passed


class Convolved(Bag):
    """torch maps a convolution by groups, whose number cannot be free."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.relu(self.conv(x.squeeze(0).t()[None])).amax(2))


def test_a_bag_that_cannot_be_mapped_is_to_be_written_for_a_batch() -> None:
    message = _refused(Convolved().double().eval(), 4, 6)
    assert "takes one sample at a time" in message
    assert "Write its forward for a batch" in message
    assert "vmap" not in message


def test_what_fails_on_any_batch_is_no_bag() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x @ torch.zeros(17, 3, dtype=x.dtype)

    message = _refused(Broken().eval(), 5)
    assert "takes one sample at a time" not in message


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        return self.last(F.relu6(self.first(x)) + F.silu(self.first(x)))


@pytest.mark.parametrize(
    ("name", "near"), [("relu6", ""), ("gelu", "'silu'"), ("hardswish", "'hardtanh'"), ("grid_sampler", "")]
)
def test_names_that_are_not_in_the_model_are_refused(name: str, near: str) -> None:
    with pytest.raises(RuleError, match=r"no operator called '" + name) as raised:
        fxpullback.compile(Small().eval(), torch.randn(2, 5), keep_exact=[name])
    assert "nonlinear operators are hardtanh, silu." in str(raised.value)
    assert ("Did you mean" in str(raised.value)) == bool(near)
    assert near in str(raised.value)


@pytest.mark.parametrize("name", ["hardtanh", "silu", "linear", "aten.silu.default"])
def test_names_that_are_in_the_model_are_kept(name: str) -> None:
    fxpullback.compile(Small().eval(), torch.randn(2, 5), keep_exact=[name])


def test_a_rule_set_is_made_for_any_model() -> None:
    fxpullback.compile(Small().eval(), torch.randn(2, 5), rules=SEMANTIC.keep_exact("attention"))
