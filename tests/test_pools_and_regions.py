"""Pools of powers, boxes of pictures, several quantiles, modes: as torch's own under `EXACT`, finite, and in a file."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import EXACT
from fxpullback.errors import CaptureError
from fxpullback.export import to_onnx
from fxpullback.graph.float64 import in_float64
from tests.helpers import assert_near, draw, pulled_back

Part = Callable[[Tensor], Tensor]


class Behind(nn.Module):
    """A part behind a linear map and a ReLU, which leaves many zeros, and a head."""

    def __init__(self, part: Part, *sizes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        count = math.prod(sizes)
        self.first, self.part, self.sizes = nn.Linear(count, count), part, sizes
        with torch.no_grad():
            made = part(torch.rand(2, *sizes))
        self.last = nn.Linear(made.numel() // 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x.flatten(1)) - 0.3).reshape(-1, *self.sizes)
        return self.last(self.part(y).reshape(x.shape[0], -1))  # type: ignore[no-any-return]


def exact_equals_torch(model: nn.Module, *sizes: int) -> None:
    """The pullback of `EXACT`, in float64, is eager autograd through the model itself."""
    wide = model.double().eval()
    step = in_float64(fxpullback.compile(wide, draw(2, *sizes), rules=EXACT).step)
    for count, seed in ((3, 4), (5, 6)):
        fresh = draw(count, *sizes, seed=seed)
        ct = draw(*wide(fresh).shape, seed=5)
        logits, pullback = step(fresh, ct)[:2]
        assert_near(logits, wide(fresh).detach())
        assert_near(pullback, pulled_back(wide, fresh, ct))


def boxes(x: Tensor, *each: tuple[float, ...]) -> Tensor:
    """The same boxes for every sample: `[batch * boxes, 5]`."""
    held = torch.tensor(each, dtype=x.dtype).repeat(x.shape[0], 1)
    sample = torch.arange(x.shape[0]).repeat_interleave(len(each)).to(x.dtype)
    return torch.cat([sample.unsqueeze(1), held], 1)


WHOLE, INSIDE, SMALL, OVER = (0.0, 0.0, 6.0, 5.0), (1.2, 0.4, 4.9, 3.3), (2.0, 2.0, 2.2, 2.1), (-3.0, 1.0, 4.0, 4.6)
EMPTY = (3.0, 3.0, 3.0, 3.0)


def regions(**options: Any) -> Part:
    ops = pytest.importorskip("torchvision.ops")

    def part(y: Tensor) -> Tensor:
        cut: Tensor = ops.roi_align(y, boxes(y, WHOLE, INSIDE, SMALL, OVER, EMPTY), **options)
        return cut

    return part


KINDS = ("linear", "lower", "higher", "nearest", "midpoint")


def quantiles(kind: str) -> Part:
    def part(y: Tensor) -> Tensor:
        several = torch.tensor([0.2, 0.5, 0.9], dtype=y.dtype)
        return torch.quantile(y, several, dim=1, interpolation=kind).transpose(0, 1)

    return part


POOLS: dict[str, tuple[Part, tuple[int, ...]]] = {
    "lp-1d": (lambda y: F.lp_pool1d(y, 2, 3, 1), (2, 8)),
    "lp-2d": (lambda y: F.lp_pool2d(y, 3.0, 2, 1), (2, 4, 3)),
    "lp-3d": (lambda y: F.lp_pool3d(y, 1.5, 2), (1, 4, 2, 2)),
    "lp-of-zeros": (lambda y: F.lp_pool1d(torch.cat([y, y * 0], -1), 2, 3), (2, 6)),
    "lp-1": (lambda y: F.lp_pool1d(y, 1, 2), (2, 6)),
}
ORDERS: dict[str, tuple[Part, tuple[int, ...]]] = {
    "largest-distance": (lambda y: torch.cdist(y, y.flip(1).detach() * 2, p=math.inf), (3, 4)),
    "ties": (lambda y: torch.cdist(y.repeat(1, 1, 2), -torch.ones(2, 8, dtype=y.dtype), p=math.inf), (3, 4)),
    "mode": (lambda y: torch.mode(y, 1, keepdim=True)[0] + y, (9,)),
    **{f"quantiles-{kind}": (quantiles(kind), (7,)) for kind in KINDS},
    "quantiles-of-rows": (
        lambda y: torch.quantile(y, torch.tensor([0.1, 1.0], dtype=y.dtype), dim=2, keepdim=True).permute(1, 0, 2, 3),
        (3, 5),
    ),
}


@pytest.mark.parametrize("name", [*POOLS, *ORDERS])
def test_the_exact_pullback_is_that_of_torch(name: str) -> None:
    part, sizes = (POOLS | ORDERS)[name]
    exact_equals_torch(Behind(part, *sizes), *sizes)


@pytest.mark.parametrize("name", ["lp-1d", "lp-of-zeros", "ties", "mode", "quantiles-linear"])
def test_a_file_of_them(name: str, tmp_path: Path) -> None:
    part, sizes = (POOLS | ORDERS)[name]
    to_onnx(fxpullback.compile(Behind(part, *sizes).eval(), torch.randn(2, *sizes)), tmp_path / "model.onnx")


def test_a_soft_pullback_through_windows_of_zeros_is_finite() -> None:
    """The ReLU that torch writes into the pool is no gate: softened, it would carry an infinite derivative on."""
    part, sizes = POOLS["lp-of-zeros"]
    pb = fxpullback.compile(Behind(part, *sizes).eval(), torch.randn(2, *sizes))
    _, pullback = pb(torch.randn(3, *sizes), torch.tensor([0, 1, 2]))[:2]
    assert bool(torch.isfinite(pullback).all())
    assert bool(pullback.any())
    assert not [row for row in pb.ledger.rows if row.verdict == "blocking"]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [-1, 1, 2])
def test_boxes_of_pictures(ratio: int, aligned: bool) -> None:
    part = regions(output_size=(2, 3), sampling_ratio=ratio, aligned=aligned, spatial_scale=0.9)
    exact_equals_torch(Behind(part, 2, 5, 6), 2, 5, 6)


def test_a_file_of_boxes(tmp_path: Path) -> None:
    part = regions(output_size=2)
    to_onnx(fxpullback.compile(Behind(part, 2, 5, 6).eval(), torch.randn(2, 2, 5, 6)), tmp_path / "model.onnx")


def test_a_list_of_boxes_has_the_length_of_a_batch() -> None:
    ops = pytest.importorskip("torchvision.ops")
    part: Part = lambda y: ops.roi_align(y, [torch.tensor([INSIDE])] * y.shape[0], 2)  # noqa: E731
    with pytest.raises(CaptureError, match=r"it fixes the batch size.*with the sample's number in a column"):
        fxpullback.compile(Behind(part, 2, 5, 6).eval(), torch.randn(2, 2, 5, 6))
