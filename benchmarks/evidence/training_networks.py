"""What is trained: the network of the demo on its drawn pictures, and a ResNet-20 on CIFAR-10."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from fxpullback.export.cli.demo import TAPS
from fxpullback.export.zoo import demo_model as demo

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR = 32
MARGIN = 4
"""Pixels that a CIFAR picture is shifted by at most."""

Pictures = tuple[Tensor, Tensor]
"""Pixels float32 [n, 3, height, width] in [-1, 1], and classes int64 [n]."""


class Block(nn.Module):
    """Two 3 x 3 convolutions; where the shape changes the shortcut is strided and padded with zeros."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.stride, self.extra = stride, (after - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra, self.extra))
        return F.relu(x + y)


class ResNet20(nn.Module):
    """He et al., Deep Residual Learning, 2015, section 4.2, for [batch, 3, 32, 32]: logits [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = ((16, 16), (16, 32), (32, 64))
        self.stages = nn.Sequential(
            *(
                Block(before if first else after, after, 2 if first and before != after else 1)
                for before, after in widths
                for first in (True, False, False)
            )
        )
        self.linear = nn.Linear(64, len(CIFAR_CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(F.relu(self.bn1(self.conv1(x))))
        return self.linear(F.avg_pool2d(x, 8).flatten(1))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        name: What tables call it.
        make: The network with fresh weights.
        train: Its training pictures.
        test: Pictures it is tested on.
        augment: Changes a batch of pictures, by a generator.
        optimiser: For the network's parameters, at the largest rate.
        rate: That rate; it rises to it and falls again over the steps, one cycle.
        epochs: Times that all pictures are seen.
        batch: Pictures of a step.
        smoothing: Of the labels.
        classes: Their names.
        taps: Where contributions are read off.
        warm: Share of the steps that the rate rises over.
    """

    name: str
    make: Callable[[], nn.Module]
    train: Pictures
    test: Pictures
    augment: Callable[[Tensor, torch.Generator], Tensor]
    optimiser: Callable[[nn.Module, float], torch.optim.Optimizer]
    rate: float
    epochs: int
    batch: int
    smoothing: float
    classes: tuple[str, ...]
    taps: str | tuple[str, ...] = "auto"
    warm: float = 0.3

    @property
    def steps(self) -> int:
        """Of an epoch; pictures that fill no batch are left out."""
        return len(self.train[0]) // self.batch

    @property
    def size(self) -> int:
        """Side of a picture."""
        return int(self.train[0].shape[-1])

    def __str__(self) -> str:
        return (
            f"{len(self.train[0])} pictures of {self.size} x {self.size}, {self.epochs} epochs of {self.steps} steps, "
            f"batch {self.batch}, one cycle up to rate {self.rate:g}, {len(self.test[0])} test pictures"
        )


def of_demo(epochs: int, pictures: int, tested: int = 1000) -> Recipe:
    """The network of `fxpullback demo` as its committed weights were trained, but shorter."""

    def optimiser(model: nn.Module, rate: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)

    train, test = demo.draw(0, pictures)[:2], demo.draw(1, tested)[:2]
    return Recipe("demo", demo.DemoNet, train, test, turned, optimiser, 3e-3, epochs, 32, 0.02, demo.CLASSES, TAPS, 0.1)


def of_cifar(folder: Path, epochs: int, pictures: int, tested: int = 2000) -> Recipe:
    """ResNet-20 on the first pictures of every class of a folder `train/CLASS/*.jpg`, `test/CLASS/*.jpg`."""

    def optimiser(model: nn.Module, rate: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4, nesterov=True)

    train, test = read(folder / "train", pictures), read(folder / "test", tested)
    return Recipe("cifar", ResNet20, train, test, shifted, optimiser, 0.1, epochs, 128, 0.0, CIFAR_CLASSES)


def read(folder: Path, count: int) -> Pictures:
    """The first pictures of each class, as many of each.

    Raises:
        SystemExit: The folder holds fewer.
    """
    each = count // len(CIFAR_CLASSES)
    pixels, labels = [], []
    for label, name in enumerate(CIFAR_CLASSES):
        files = sorted((folder / name).glob("*.jpg"))[:each]
        if len(files) < each or not files:
            raise SystemExit(f"{folder / name}: {len(files)} pictures, and {each} of each class are wanted.")
        for file in files:
            with Image.open(file) as picture:
                pixels.append(np.asarray(picture.convert("RGB")))
            labels.append(label)
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(), torch.tensor(labels)


def turned(x: Tensor, generator: torch.Generator) -> Tensor:
    """Turn and mirror a batch, swap its colours, shift its brightness, as examples/train_demo.py does."""
    x = torch.rot90(x, int(torch.randint(4, (), generator=generator)), (2, 3))
    x = x.flip(3) if torch.rand((), generator=generator) < 0.5 else x
    x = x[:, torch.randperm(3, generator=generator)]
    return (x + 0.2 * torch.randn(len(x), 3, 1, 1, generator=generator)).clamp(-1, 1)


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shift every picture [n, 3, height, width] by up to `MARGIN` pixels, grey coming in, and mirror half of them."""
    count, _, height, width = x.shape
    wide = F.pad(x, (MARGIN,) * 4)
    top, left = torch.randint(2 * MARGIN + 1, (2, count, 1), generator=generator)
    across = left + torch.arange(width)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    across = torch.where(mirrored, across.flip(1), across)
    down = top + torch.arange(height)
    each = torch.arange(count)[:, None, None]
    return wide.permute(0, 2, 3, 1)[each, down[:, :, None], across[:, None]].permute(0, 3, 1, 2)
