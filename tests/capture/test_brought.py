"""Models as users bring them: old hooks, inference mode, masks, one logit, assignment in place; and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback.contract.errors import CaptureError
from fxpullback.export import to_onnx
from tests.helpers import assert_near, draw


class Function(nn.Module):
    """A function of a batch between two linear layers."""

    def __init__(self, function: Any, last: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, last)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self, self.first(x))


def gradient(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_(True)
    logits = model(leaf)
    column = logits if logits.ndim == 2 else logits[:, None]
    (found,) = torch.autograd.grad(column[:, 0].sum(), leaf)
    return column.detach(), found


def is_exact(model: nn.Module, *sizes: int) -> None:
    """EXACT gives the logits and the gradient of the module itself, at a batch that was not captured."""
    pb = fxpullback.compile(model, draw(2, *sizes), rules=fxpullback.EXACT)
    x = draw(3, *sizes, seed=4)
    for found, wanted in zip(pb(x, torch.zeros(3, dtype=torch.int64)), gradient(model, x), strict=True):
        assert_near(found, wanted)
    assert pb.verify().passed


def _added(net: Any, h: Tensor) -> Any:
    h = h * 1
    h[..., 1] += h[..., 0]
    h[..., -1] = torch.tanh(h[..., 2])
    h[..., 2:4] *= 2
    return net.last(h)


def _last_of_all(net: Any, h: Tensor) -> Any:
    return net.last(h)[torch.arange(h.shape[0], device=h.device), -1]


def _place_of_all(net: Any, h: Tensor) -> Any:
    return net.last(h)[torch.arange(h.shape[0]), torch.tensor([2])]


WORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "assignment": (_added, (6,)),
    "last of all": (_last_of_all, (4, 6)),
    "place of all": (_place_of_all, (4, 6)),
    "rank one": (lambda net, h: net.last(torch.relu(h))[:, 1], (6,)),
    "rank one, squeezed": (lambda net, h: net.last(torch.relu(h)).sum(1, keepdim=True).squeeze(1), (6,)),
    "diff": (lambda net, h: net.last(h * F.pad(torch.arange(8.0).diff(), (1, 0))), (6,)),
    "where": (lambda net, h: net.last(torch.where(h < 0, h * 0.1, h)), (6,)),
}


@pytest.mark.parametrize("name", WORKS)
def test_works(name: str) -> None:
    function, sizes = WORKS[name]
    is_exact(Function(function).double().eval(), *sizes)


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_weights_of_old_hooks_are_computed_once(norm: str) -> None:
    net = Function(lambda net, h: net.last(torch.relu(h))).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        getattr(nn.utils, norm)(net.first)
    net(draw(2, 6))
    is_exact(net.eval(), 6)
    assert net.first._forward_pre_hooks


def test_compiled_and_written_in_inference_mode(tmp_path: Path) -> None:
    with torch.inference_mode():
        net = Function(lambda net, h: net.last(torch.relu(h))).eval()
        pb = fxpullback.compile(net, torch.randn(2, 6))
        assert pb.verify().passed
        to_onnx(pb, tmp_path / "inference.onnx")


def _traced() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(nn.Linear(6, 3), torch.randn(2, 6))


def _with_part() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.Linear(6, 6), torch.jit.script(nn.Linear(6, 3)))


@pytest.mark.parametrize("made", [_traced, _with_part])
def test_what_torch_jit_compiled_is_refused_and_the_advice_works(made: Any) -> None:
    model = made().eval()
    with pytest.raises(CaptureError, match=r"compiled by torch.jit.*Compile the nn.Module it was made of"):
        fxpullback.compile(model, torch.randn(2, 6))
    plain = nn.Linear(6, 3)
    plain.load_state_dict(_traced().state_dict())
    assert fxpullback.compile(plain.eval(), torch.randn(2, 6)).verify().passed


def _packed(net: Any, h: Tensor) -> Any:
    lengths = torch.full((h.shape[0],), 2)
    packed = nn.utils.rnn.pack_padded_sequence(h, lengths, batch_first=True)
    return net.last(nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)[0].mean(1))


REFUSED: dict[str, tuple[Any, tuple[int, ...], str]] = {
    "item": (lambda net, h: net.last(h) * h.mean().item(), (6,), r"test_brought.py:\d+\) reads a number off a tensor"),
    "branch": (lambda net, h: net.last(h if h.sum() > 0 else -h), (6,), r"depends on the values.*test_brought.py:\d+"),
    "sum over a mask": (lambda net, h: net.last(h) + h[h < 0].sum(), (6,), r"test_brought.py:\d+.*weighted mean"),
    "packed": (_packed, (4, 6), r"it packs sequences.*test_brought.py:\d+"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_with_the_line_and_what_to_do(name: str) -> None:
    function, sizes, message = REFUSED[name]
    with pytest.raises(CaptureError, match=message):
        fxpullback.compile(Function(function).eval(), torch.randn(2, *sizes))


class Kept(nn.Module):
    """The advice on constant masks, followed."""

    kept: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", (torch.rand(5, 5) > 0.5).flatten().nonzero().squeeze(1))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.relu(x).flatten(2)[:, :, self.kept].mean(2))


def test_the_advice_on_constant_masks_works() -> None:
    is_exact(Kept().double().eval(), 4, 5, 5)
