"""The captured graph is held to the model itself: its logits, and the gradient that torch gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback.contract.errors import CaptureError
from fxpullback.ledger import Ledger
from tests.helpers import assert_near, draw


class StraightThrough(torch.autograd.Function):
    """Sign, with the gradient of a clamp."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sign(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return g * (x.abs() <= 1)


class Reversal(torch.autograd.Function):
    """The identity, with the gradient times minus a half."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return -ctx.strength * g, None


class Rounded(torch.autograd.Function):
    """Rounding, with the gradient passed on; its context set up apart."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.round(x * 4) / 4

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g


class OwnRelu(torch.autograd.Function):
    """What a derivative is, written by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.relu(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g * (ctx.saved_tensors[0] > 0)


class Guided(torch.autograd.Function):
    """ReLU whose gradient passes where it is positive itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.relu(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g * (ctx.saved_tensors[0] > 0) * (g > 0)


class Mixed(torch.autograd.Function):
    """The identity, with the mean gradient in every place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g.mean(1, keepdim=True).expand_as(g)


class Net(nn.Module):
    """Two linear layers with a function between them, and a way past it."""

    def __init__(self, between: Any) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.between = between
        self.double().eval()

    def forward(self, x: Tensor) -> Any:
        h = self.first(x)
        return self.last(self.between(h) + 0.1 * h)


def gradient(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_(True)
    logits = model(leaf)
    (found,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), leaf)
    return found


HONOURED: dict[str, Any] = {
    "StraightThrough": StraightThrough.apply,
    "Reversal": lambda h: Reversal.apply(h, 0.5),
    "Rounded": Rounded.apply,
    "OwnRelu": OwnRelu.apply,
    "detach": lambda h: h * torch.sigmoid(h).detach(),
    "data": lambda h: h + (h.round() - h).detach(),
}


@pytest.mark.parametrize("name", HONOURED)
@pytest.mark.parametrize("names", [False, True])
def test_exact_is_the_gradient_of_the_model_itself(name: str, names: bool) -> None:
    net, x, target = Net(HONOURED[name]), draw(3, 4, seed=2), torch.tensor([0, 1, 2])
    pb = fxpullback.compile(net, {"x": draw(1, 4)} if names else draw(1, 4), rules=fxpullback.EXACT)
    assert_near(pb(x, target)[1], gradient(net, x, target))
    assert pb.verify().passed


def test_compiled_without_gradients() -> None:
    x, target = draw(3, 4, seed=2), torch.tensor([0, 1, 2])
    with torch.no_grad():
        pb = fxpullback.compile(Net(StraightThrough.apply), draw(1, 4), rules=fxpullback.EXACT)
    assert_near(pb(x, target)[1], gradient(Net(StraightThrough.apply), x, target))


@pytest.mark.parametrize("name", ["StraightThrough", "Reversal", "Rounded"])
def test_a_backward_of_the_authors_stands_in_the_ledger(name: str) -> None:
    pb = fxpullback.compile(Net(HONOURED[name]), draw(1, 4), rules=fxpullback.EXACT)
    rows = [row for row in pb.ledger.rows if row.reason and f"{name}.backward" in row.reason]
    assert any(row.injected and "the model's own backward" in str(row.reason) for row in rows)


def test_what_is_the_derivative_is_left_to_the_rules() -> None:
    pb = fxpullback.compile(Net(OwnRelu.apply), draw(1, 4), rules=fxpullback.SEMANTIC)
    assert [row.rule for row in pb.ledger.rows if row.gate] == ["gaussian_relu"] or pb.ledger.gates == 1
    assert any(row.verdict == "softened" for row in pb.ledger.rows)


def _tensor_hook(h: Tensor) -> Tensor:
    made = h * 1
    if made.requires_grad:
        made.register_hook(lambda g: g.clamp(min=0))
    return made


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (Guided.apply, r"Guided.backward is the author's own.*is not linear in the gradient|neither the derivative"),
        (Mixed.apply, r"Mixed.backward is the author's own.*neither the derivative of its forward"),
        (_tensor_hook, r"not its gradient.*the hook on a tensor's gradient that test_original.py:\d+ registers"),
    ],
)
def test_a_backward_that_cannot_be_honoured_is_refused_by_name(between: Any, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        fxpullback.compile(Net(between), draw(1, 4))


def test_a_hook_of_a_module_that_changes_gradients_is_refused_by_name() -> None:
    net = Net(nn.ReLU())
    net.between.register_full_backward_hook(lambda module, given, made: (made[0] * 2,))
    with pytest.raises(CaptureError, match=r"the backward hook of between \(ReLU\).*Remove it before compiling"):
        fxpullback.compile(net, draw(1, 4))


def test_a_hook_that_only_looks_is_no_fault() -> None:
    net, seen = Net(nn.ReLU()), list[Any]()
    net.between.register_full_backward_hook(lambda module, given, made: seen.append(made))
    assert fxpullback.compile(net, draw(1, 4)).verify().passed


def _without(h: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.tanh(h)


@torch.no_grad()
def _decorated(h: Tensor) -> Tensor:
    return torch.tanh(h)


def _inference(h: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.tanh(h).clone()


@pytest.mark.parametrize("between", [_without, _decorated])
def test_regions_without_gradients_are_explained_through_and_named(between: Any) -> None:
    net, x, target = Net(between), draw(2, 4, seed=1), torch.tensor([0, 1])
    pb = fxpullback.compile(net, draw(1, 4), rules=fxpullback.EXACT)
    assert_near(pb(x, target)[1], gradient(Net(torch.tanh), x, target))
    (note,) = pb.ledger.notes
    assert note.startswith("gradients are turned off at test_original.py:")
    assert f"note: {note}" in str(pb.ledger)
    assert Ledger.from_dict(pb.ledger.to_dict()).notes == pb.ledger.notes


class Constant(nn.Module):
    """Makes its mask without gradients, as library code does: no one need be told of it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        with torch.no_grad():
            mask = torch.ones_like(x) * 0.5
        return self.inner(x * mask)


def test_a_constant_made_without_gradients_is_not_worth_a_note() -> None:
    assert fxpullback.compile(Constant().double().eval(), draw(1, 4)).ledger.notes == ()


class Counting(nn.Module):
    """Counts its calls, and uses the count."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = nn.Linear(4, 3), 0

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return self.inner(x) * self.calls


def test_a_forward_that_uses_what_torch_does_not_see_is_refused() -> None:
    count = 0

    def elsewhere(h: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return h * count

    with pytest.raises(CaptureError, match=r"its logits are off by .*burnt in"):
        fxpullback.compile(Net(elsewhere), draw(1, 4))


class Words(nn.Module):
    """A lookup, then a backward of the author's own or a hook."""

    def __init__(self, between: Any) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.words, self.net = nn.Embedding(9, 4), Net(between)

    def forward(self, ids: Tensor) -> Any:
        return self.net(self.words(ids).mean(1))


def test_models_of_ids_are_held_to_their_own_gradient() -> None:
    ids, target = torch.tensor([[1, 2, 3], [4, 4, 0]]), torch.tensor([0, 1])
    net = Words(StraightThrough.apply).double().eval()
    pb = fxpullback.compile(net, {"ids": ids}, at="embeddings", rules=fxpullback.EXACT)
    leaf = net.words(ids).detach().requires_grad_(True)
    logits = net.net(leaf.mean(1))
    (wanted,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), leaf)
    assert_near(pb(ids, target)[1], wanted)
    with pytest.raises(CaptureError, match=r"not its gradient.*the hook on a tensor's gradient"):
        fxpullback.compile(Words(_tensor_hook).double().eval(), {"ids": ids}, at="embeddings")


def test_exported_programs_are_held_to_themselves() -> None:
    net = Net(F.gelu)
    program = torch.export.export(net, (draw(2, 4),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert fxpullback.compile(program, draw(2, 4)).verify().passed


def test_every_error_of_ours_is_one_of_one_name() -> None:
    with pytest.raises(fxpullback.FxPullbackError):
        fxpullback.compile(Net(Guided.apply), draw(1, 4))
