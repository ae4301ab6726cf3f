"""Values read between the places of a picture: logits and `EXACT` pullback as torch's own, and in a file."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import EXACT
from fxpullback.export import to_onnx
from fxpullback.graph.float64 import in_float64
from tests.helpers import assert_near, draw, pulled_back


class Sampled(nn.Module):
    """A picture or volume read at places that depend on it, and at constant ones, in and around it."""

    def __init__(self, axes: int = 2, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](2, 3, 1)
        self.where = nn.Linear(2, 7 * axes)
        self.axes, self.options = axes, options
        self.grid = nn.Buffer(torch.rand(1, *[5] * axes, axes) * 2.6 - 1.3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x)
        told = self.where(x.flatten(2).mean(2)).reshape(x.shape[0], 7, *[1] * (self.axes - 1), self.axes)
        grid = self.grid.expand(x.shape[0], *[-1] * (self.axes + 1))
        kinds = itertools.product((told * 1.5, grid), ("zeros", "border", "reflection"))
        return torch.cat([F.grid_sample(y, g, padding_mode=p, **self.options).flatten(1) for g, p in kinds], 1)


class Transformed(nn.Module):
    """A spatial transformer."""

    def __init__(self, align: bool, axes: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.theta, self.head = nn.Linear(3, axes * (axes + 1)), nn.Linear(3, 4)
        self.align, self.axes = align, axes

    def forward(self, x: Tensor) -> Tensor:
        theta = self.theta(x.flatten(2).mean(2) + 1).reshape(-1, self.axes, self.axes + 1)
        grid = F.affine_grid(theta, [x.shape[0], 3, *[4, 6, 3][: self.axes]], align_corners=self.align)
        read = F.grid_sample(x, grid, align_corners=self.align)
        return self.head(F.relu(read).flatten(2).mean(2))  # type: ignore[no-any-return]


class Deformed(nn.Module):
    """A deformable convolution, its offsets and mask computed."""

    def __init__(self, groups: int = 1, offsets: int = 1, masked: bool = False, **options: Any) -> None:
        super().__init__()
        ops = pytest.importorskip("torchvision.ops")
        torch.manual_seed(0)
        self.conv = ops.DeformConv2d(4, 6, (3, 2), groups=groups, **options)
        self.offset = nn.Conv2d(4, 2 * 6 * offsets, (3, 2), **options)
        self.mask = nn.Conv2d(4, 6 * offsets, (3, 2), **options) if masked else None

    def forward(self, x: Tensor) -> Tensor:
        mask = None if self.mask is None else self.mask(x).sigmoid()
        return self.conv(x, self.offset(x) * 2, mask).flatten(1)  # type: ignore[no-any-return]


def exact_equals_torch(model: nn.Module, *sizes: int) -> None:
    """The pullback of `EXACT`, in float64, is eager autograd through the model itself."""
    wide = model.double().eval()
    step = in_float64(fxpullback.compile(wide, draw(2, *sizes), rules=EXACT).step)
    fresh = draw(3, *sizes, seed=4)
    ct = draw(*wide(fresh).shape, seed=5)
    logits, pullback = step(fresh, ct)[:2]
    assert_near(logits, wide(fresh).detach())
    assert_near(pullback, pulled_back(wide, fresh, ct))


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grids_of_every_kind(mode: str, align: bool) -> None:
    exact_equals_torch(Sampled(mode=mode, align_corners=align), 2, 4, 3)


def test_many_channels_few_places_and_volumes() -> None:
    exact_equals_torch(Sampled(align_corners=False), 2, 5, 2)
    exact_equals_torch(Sampled(3, align_corners=False), 2, 2, 3, 5)


@pytest.mark.parametrize("align", [True, False])
def test_spatial_transformers(align: bool) -> None:
    exact_equals_torch(Transformed(align), 3, 5, 6)
    exact_equals_torch(Transformed(align, 3), 3, 2, 5, 6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1, "bias": False},
        {"masked": True, "stride": 2, "padding": (2, 1), "dilation": (1, 2)},
        {"groups": 2, "offsets": 2, "masked": True},
    ],
    ids=["plain", "padded", "masked", "groups"],
)
def test_deformable_convolutions(options: dict[str, Any]) -> None:
    exact_equals_torch(Deformed(**options), 4, 6, 5)


@pytest.mark.parametrize(
    ("kind", "options", "channels"),
    [(Sampled, {"align_corners": False}, 2), (Transformed, {"align": False}, 3), (Deformed, {"masked": True}, 4)],
    ids=["grid", "transformer", "deformable"],
)
def test_a_file_of_them(kind: type[nn.Module], options: dict[str, Any], channels: int, tmp_path: Path) -> None:
    pb = fxpullback.compile(kind(**options).eval(), torch.randn(2, channels, 6, 5))
    to_onnx(pb, tmp_path / "model.onnx")
