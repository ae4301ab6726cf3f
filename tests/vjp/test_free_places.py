"""Places counted from the end of an axis whose size is free: `x[:, -1]`, the last step of a sequence, and its kin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback import EXACT
from fxpullback.export import Session, to_onnx
from tests.helpers import assert_near, draw, pulled_back


def _assigned(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, -1] = y[:, 0] * 3
    return (y * y).mean(1)


PLACES: dict[str, Callable[[Tensor], Tensor]] = {
    "last": lambda x: x[:, -1],
    "last but one": lambda x: x[:, -2],
    "first": lambda x: x[:, 0],
    "last and first": lambda x: x[:, -1] * x[:, 0],
    "last three": lambda x: x[:, -3:].sum(1),
    "all but the last": lambda x: x[:, :-1].sum(1),
    "select": lambda x: x.select(1, -3),
    "of places first": lambda x: x.transpose(0, 1)[-1],
    "slice": lambda x: x[:, -3:-1].sum(1),
    "narrow": lambda x: x.narrow(1, x.shape[1] - 2, 2).sum(1),
    "of the reverse": lambda x: x.flip(1)[:, -1],
    "of the rolled": lambda x: x.roll(1, 1)[:, -1],
    "index": lambda x: x[:, torch.tensor([-1, 0])].sum(1),
    "slice_scatter": lambda x: torch.slice_scatter(x, x[:, :1] * 2, 1, -1).mean(1),
    "select_scatter": lambda x: torch.select_scatter(x, x[:, 0] * 2, 1, -1).mean(1),
    "assigned": _assigned,
}
"""Functions of `[batch, places, 4]`."""


class Placed(nn.Module):
    """What is taken of a place, behind a gate."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return PLACES[self.name](torch.tanh(x))


@pytest.mark.parametrize("name", PLACES)
def test_exact_is_torchs_own_gradient_at_any_size(name: str) -> None:
    net = Placed(name).eval()
    pb = fxpullback.compile(net, draw(2, 7, 4), rules=EXACT, target="cotangent", free_size=[1])
    for size in (7, 5, 11):
        x, u = draw(3, size, 4, seed=size), draw(3, 4, seed=1)
        logits, pullback = pb(x, u)
        assert_near(logits, net(x))
        assert_near(pullback, pulled_back(net, x, u))
    assert pb.verify().passed


@pytest.mark.parametrize("name", ["last", "select", "of the reverse"])
def test_in_a_file(name: str, tmp_path: Path) -> None:
    net = Placed(name).eval()
    example = draw(2, 7, 4, dtype=torch.float32)
    pb = fxpullback.compile(net, example, rules=EXACT, target="cotangent", free_size=[1])
    session = Session(to_onnx(pb, tmp_path / "places.onnx"))
    x, u = draw(3, 11, 4, seed=2, dtype=torch.float32), draw(3, 4, seed=1, dtype=torch.float32)
    result = session(x.numpy(), u.numpy())
    assert_near(torch.from_numpy(np.array(result.pullback)), pulled_back(net, x, u), 1e-5)
