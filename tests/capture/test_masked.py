"""Entries that a mask of the input chooses, changed and put back: a choice, exact as eager autograd has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback import EXACT
from fxpullback.contract.errors import CaptureError
from fxpullback.export import Session, to_onnx
from tests.helpers import assert_near, draw, pulled_back

Middle = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    def __init__(self, middle: Middle) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.last = nn.Linear(4, 6), middle, nn.Linear(6, 3)
        self.slope = nn.Parameter(torch.tensor(0.3))
        self.shift = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Any:
        h = self.middle(self, self.first(x))
        return self.last(h if h.ndim == 2 else h.mean(1))


def _scaled(net: Net, h: Tensor) -> Tensor:
    h = h.clone()
    h[h < 0] *= net.slope
    return h


def _assigned(net: Net, h: Tensor) -> Tensor:
    h = h.clone()
    h[h > 0] = torch.tanh(h[h > 0]) * 2 + 1
    return h


def _logarithm(net: Net, h: Tensor) -> Tensor:
    h = torch.relu(h).clone()  # zeros, where a logarithm has neither value nor derivative
    h[h > 0] = torch.log(h[h > 0])
    return h


def _root(net: Net, h: Tensor) -> Tensor:
    chosen = h > 0.1
    return h.index_put((chosen,), torch.sqrt(h[chosen] - 0.1) / h[chosen])


def _of_another(net: Net, h: Tensor) -> Tensor:
    chosen, other = h < 0, torch.sin(h)
    h = h.clone()
    h[chosen] = other[chosen] * h[chosen]
    return h


def _added(net: Net, h: Tensor) -> Tensor:
    chosen = h < 0
    return h.index_put((chosen,), h[chosen] * net.slope, accumulate=True)


def _rows(net: Net, h: Tensor) -> Tensor:
    chosen = h[..., 0] > 0
    h = h.clone()
    h[chosen] = h[chosen] * 2 + net.shift
    return h


def _scattered(net: Net, h: Tensor) -> Tensor:
    chosen = h < 0
    return h.masked_scatter(chosen, h.masked_select(chosen).exp())


def _twice(net: Net, h: Tensor) -> Tensor:
    h = h.clone()
    h[h < 0] *= net.slope
    h[h > 0.5] = h[h > 0.5] * 2
    return h


def _one_number(net: Net, h: Tensor) -> Tensor:
    h = h.clone()
    h[h < 0] = net.slope
    return h


WORKS: dict[str, tuple[Middle, tuple[int, ...]]] = {
    "scaled": (_scaled, (4,)),
    "scaled, of rank three": (_scaled, (5, 4)),
    "assigned": (_assigned, (4,)),
    "logarithm": (_logarithm, (4,)),
    "root": (_root, (4,)),
    "of another": (_of_another, (4,)),
    "added": (_added, (4,)),
    "rows": (_rows, (5, 4)),
    "scattered": (_scattered, (4,)),
    "twice": (_twice, (4,)),
    "one number": (_one_number, (4,)),
}


@pytest.mark.parametrize("name", WORKS)
def test_exact_is_the_gradient_of_the_model(name: str) -> None:
    middle, sizes = WORKS[name]
    model = Net(middle).double().eval()
    pb = fxpullback.compile(model, draw(2, *sizes), rules=EXACT, target="cotangent")
    x, ct = draw(7, *sizes, seed=1), draw(7, 3, seed=2)
    logits, pullback = pb(x, ct)
    assert_near(logits, model(x).detach(), 1e-12)
    assert_near(pullback, pulled_back(model, x, ct), 1e-12)
    assert pb.verify().passed


def test_a_leaky_relu_by_mask_is_one(tmp_path: Path) -> None:
    model = Net(lambda net, h: _leaky(h)).eval()
    pb = fxpullback.compile(model, torch.randn(2, 4))
    (gate,) = (row for row in pb.ledger.rows if row.verdict == "softened")
    assert gate.rule == "relu"
    to_onnx(pb, tmp_path / "leaky.onnx")
    x, target = draw(3, 4, dtype=torch.float32), torch.tensor([0, 1, 2])
    result = Session(tmp_path / "leaky.onnx")(x.numpy(), target.numpy())
    assert_near(torch.from_numpy(result.pullback), pb(x, target)[1], 1e-5)


def _leaky(h: Tensor) -> Tensor:
    h = h.clone()
    h[h < 0] *= 0.1
    return h


def _mixed(net: Net, h: Tensor) -> Tensor:
    h = h.clone()
    h[h < 0] = h[h < 0] - h[h < 0].mean()
    return h


def _elsewhere(net: Net, h: Tensor) -> Tensor:
    h = h.clone()
    h[h < 0] = h[-h < 0][: h[h < 0].shape[0]]
    return h


REFUSED: dict[str, Middle] = {
    "mean of the chosen": _mixed,
    "places of another mask": _elsewhere,
    "sorted": lambda net, h: h.index_put((h < 0,), h[h < 0].sort()[0]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixes_entries_is_refused_with_the_line(name: str) -> None:
    with pytest.raises(CaptureError, match=r"test_masked\.py"):
        fxpullback.compile(Net(REFUSED[name]).eval(), torch.randn(2, 4))
