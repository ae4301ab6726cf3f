"""Sizes that a forward keeps in tensors and reads back as numbers, with the size free: against torch's own gradient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback import EXACT
from fxpullback.contract.errors import CaptureError, FxPullbackError
from fxpullback.export import Session, to_onnx
from tests.helpers import assert_near, draw, pulled_back

TABLE = torch.linspace(-1.0, 1.0, 48, dtype=torch.float64)


def _around(x: Tensor) -> Tensor:
    n = torch.tensor(min(max(x.shape[1], x.shape[1]), 24))
    return TABLE[24 - n : 24 + n].view(2, -1).sum(0)


def _clamped(x: Tensor) -> Tensor:
    n: Any = torch.tensor(x.shape[1])
    return TABLE[torch.clamp(torch.arange(x.shape[1]) * 3, 0, n * 2 - 1)]


def _item(x: Tensor) -> Tensor:
    n = torch.as_tensor(x.shape[1])
    return torch.arange((n + 1).item() - 1) / n


def _product(x: Tensor) -> Tensor:
    n: Any = -(2 * torch.tensor(x.shape[1]).long() - 1)
    places: Tensor = torch.arange(1 - n)
    return places[::2] * 0.1


def _float_steps(x: Tensor) -> Tensor:
    return torch.arange(x.shape[1], -x.shape[1], -2.0, dtype=torch.int64) + torch.arange(0.0, x.shape[1], 1.0)


def _diagonal(x: Tensor) -> Tensor:
    n = x.shape[1]
    return (torch.eye(n) * torch.arange(n)).sum(0) - 0.5 * torch.eye(n, n + 2)[:, 1 : n + 1].sum(0)


def _written(x: Tensor) -> Tensor:
    n = torch.tensor(x.shape[1])
    n += 3
    return TABLE[3:n]


SIZES: dict[str, Callable[[Tensor], Tensor]] = {
    "bounds of a slice": _around,
    "a bound of clamp": _clamped,
    "item": _item,
    "arithmetic": _product,
    "steps that are floats": _float_steps,
    "a diagonal": _diagonal,
    "written to": _written,
}


class Weighted(nn.Module):
    """What is computed of the length weighs each place."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.table = TABLE

    def forward(self, x: Tensor) -> Tensor:
        weights = SIZES[self.name](x).to(x.dtype)
        return torch.tanh(x * weights[None, :, None]).mean(1)


@pytest.mark.parametrize("name", SIZES)
def test_a_size_in_a_tensor_is_free(name: str) -> None:
    net = Weighted(name).eval()
    try:
        pb = fxpullback.compile(net, draw(2, 7, 3), rules=EXACT, target="cotangent", free_size=[1])
    except FxPullbackError:
        assert name == "written to", "refused, though nothing is written to it"
        return
    for length in (7, 5, 11):
        x, u = draw(3, length, 3, seed=length), draw(3, 3, seed=1)
        logits, pullback = pb(x, u)
        assert_near(logits, net(x))
        assert_near(pullback, pulled_back(net, x, u))


@pytest.mark.parametrize("name", ["bounds of a slice", "a bound of clamp", "a diagonal"])
def test_in_a_file(name: str, tmp_path: Path) -> None:
    net = Weighted(name).eval()
    pb = fxpullback.compile(net, draw(2, 7, 3, dtype=torch.float32), rules=EXACT, target="cotangent", free_size=[1])
    session = Session(to_onnx(pb, tmp_path / "lengths.onnx"))
    x, u = draw(3, 11, 3, seed=2, dtype=torch.float32), draw(3, 3, seed=1, dtype=torch.float32)
    result = session(x.numpy(), u.numpy())
    assert_near(torch.from_numpy(np.array(result.pullback)), pulled_back(net, x, u), 1e-5)


def test_a_size_taken_as_a_plain_number_is_said_to_be_fixed() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x).mean(1) * float(sum(range(int(torch.tensor(x.shape[1])))))

    with pytest.raises(CaptureError, match="free_size: the model fixes the size of its input"):
        fxpullback.compile(Fixed().eval(), draw(2, 7, 3), free_size=[1])


def test_a_cotangent_of_another_type_than_the_logits_is_refused() -> None:
    pb = fxpullback.compile(nn.Linear(3, 2).double().eval(), draw(2, 3), target="cotangent")
    with pytest.raises(
        fxpullback.errors.InputError, match=r"torch.float32, and the logits are of torch.float64.*target.to"
    ):
        pb(draw(2, 3), draw(2, 2, dtype=torch.float32))
