"""Clouds of points and clips: networks as users write them, `EXACT` as torch's own gradient, and in files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import EXACT
from fxpullback.contract.errors import DifferentiateError
from fxpullback.export import to_onnx
from fxpullback.graph.float64 import in_float64
from tests.helpers import assert_near, draw, pulled_back

Neighbours = Callable[[Tensor, Tensor], Tensor]


def nearest(x: Tensor, count: int) -> Tensor:
    """Places of the nearest points, `[batch, points, count]`, of points `[batch, channels, points]`."""
    inner = -2 * torch.matmul(x.transpose(2, 1), x)
    squares = (x**2).sum(1, keepdim=True)
    return (-squares - inner - squares.transpose(2, 1)).topk(count, dim=-1)[1]


def flat(x: Tensor, places: Tensor) -> Tensor:
    """Rows of all samples, one behind the other, as the authors of DGCNN look them up."""
    batch, channels, points = x.shape
    base = torch.arange(0, batch, device=x.device).view(-1, 1, 1) * points
    rows = x.transpose(2, 1).contiguous().view(batch * points, -1)
    return rows[(places + base).view(-1), :].view(batch, points, -1, channels)


def unflattened(x: Tensor, places: Tensor) -> Tensor:
    """The same with the index in its own shape, the sample first in the sum."""
    batch, channels, points = x.shape
    rows = x.transpose(2, 1).reshape(-1, channels)
    return rows[points * torch.arange(batch)[:, None, None] + places]


def gathered(x: Tensor, places: Tensor) -> Tensor:
    batch, channels, points = x.shape
    wide = x.unsqueeze(2).expand(batch, channels, points, points)
    return wide.gather(3, places.unsqueeze(1).expand(-1, channels, -1, -1)).permute(0, 2, 3, 1)


class DGCNN(nn.Module):
    """Two convolutions of edges to the four nearest points, the second by distances of features."""

    def __init__(self, look: Neighbours) -> None:
        super().__init__()
        self.look = look
        self.first = nn.Sequential(nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8), nn.LeakyReLU(0.2))
        self.second = nn.Sequential(nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8), nn.LeakyReLU(0.2))
        self.head = nn.Linear(32, 4)

    def edges(self, x: Tensor) -> Tensor:
        near = self.look(x, nearest(x, 4))
        own = x.transpose(2, 1).unsqueeze(2).repeat(1, 1, 4, 1)
        return torch.cat([near - own, own], 3).permute(0, 3, 1, 2).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(self.edges(x)).max(-1)[0]
        both = torch.cat([first, self.second(self.edges(first)).max(-1)[0]], 1)
        pooled = [F.adaptive_max_pool1d(both, 1), F.adaptive_avg_pool1d(both, 1)]
        return self.head(torch.cat(pooled, 1).flatten(1))  # type: ignore[no-any-return]


class Turned(nn.Module):
    """Points or features turned by a matrix that is computed of them, as in PointNet."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.conv, self.norm = size, nn.Conv1d(size, 8, 1), nn.BatchNorm1d(8)
        self.matrix = nn.Linear(8, size * size)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.max(F.relu(self.norm(self.conv(x))), 2, keepdim=True)[0].view(-1, 8)
        same = torch.eye(self.size, dtype=x.dtype).view(1, -1).repeat(x.size(0), 1)
        matrix = (self.matrix(pooled) + same).view(-1, self.size, self.size)
        return torch.bmm(x.transpose(2, 1), matrix).transpose(2, 1)


class PointNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.turn, self.first, self.norm = Turned(3), nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8)
        self.again, self.second, self.head = Turned(8), nn.Conv1d(8, 16, 1), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.again(F.relu(self.norm(self.first(self.turn(x)))))
        return F.log_softmax(self.head(torch.max(self.second(y), 2)[0]), dim=1)


def clips(factored: bool = False) -> nn.Module:
    video: Any = pytest.importorskip("torchvision.models.video.resnet")
    convolution = video.Conv2Plus1D if factored else video.Conv3DSimple
    stem = video.R2Plus1dStem if factored else video.BasicStem
    made: nn.Module = video.VideoResNet(video.BasicBlock, [convolution] * 4, [1, 1, 1, 1], stem, num_classes=5)
    return made


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dgcnn": (lambda: DGCNN(flat), (3, 16)),
    "dgcnn-unflattened": (lambda: DGCNN(unflattened), (3, 12)),
    "dgcnn-gather": (lambda: DGCNN(gathered), (3, 16)),
    "pointnet": (PointNet, (3, 16)),
    "r3d": (clips, (3, 4, 16, 16)),
    "r2plus1d": (lambda: clips(True), (3, 4, 16, 16)),
}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name][0]().eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_exact_pullback_is_that_of_torch(name: str) -> None:
    wide, sizes = made(name).double(), NETWORKS[name][1]
    step = in_float64(fxpullback.compile(wide, draw(2, *sizes), rules=EXACT).step)
    x = draw(3, *sizes, seed=4)
    ct = draw(*wide(x).shape, seed=5)
    logits, pullback = step(x, ct)[:2]
    assert_near(logits, wide(x).detach(), 1e-9)
    assert_near(pullback, pulled_back(wide, x, ct), 1e-9)


@pytest.mark.parametrize("name", ["dgcnn", "pointnet", "r3d"])
def test_a_file_of_them(name: str, tmp_path: Path) -> None:
    """The automatic choice of taps finds maps of one kind, where the frames of a clip have become one too."""
    sizes = NETWORKS[name][1]
    pb = fxpullback.compile(made(name), torch.randn(2, *sizes), taps="auto")
    assert pb.contributions is not None
    to_onnx(pb, tmp_path / "model.onnx")


def test_rows_of_another_sample_are_still_refused() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            batch, points, _ = x.shape
            start = (batch - 1 - torch.arange(batch)).view(-1, 1) * points
            place = x.sum(2).argmax(1, keepdim=True)
            return self.head(x.reshape(batch * points, -1)[(place + start).view(-1)])  # type: ignore[no-any-return]

    with pytest.raises(DifferentiateError, match="looked up along the batch"):
        fxpullback.compile(Shifted().eval(), torch.randn(2, 4, 5))
