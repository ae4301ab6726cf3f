"""The network that ships with the package, and the pictures it was trained on.

The pictures are drawn by code, so what makes the class and where it sits is known: one object whose outline decides the
class, in any place, size, angle and colour, on a background of colour, noise and strokes that says nothing about the
class. The network is small and uses every kind of rule once or twice.
"""

from __future__ import annotations

import math
from importlib import resources

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import load
from torch import Tensor, nn

CLASSES = ("disc", "ring", "square", "triangle", "cross", "star")
SIZE = 64
_SCALE = 4  # drawn so much larger and averaged down, for smooth edges
_MARGIN = 2  # pixels around the object that count as the object: its edge is what tells the classes apart
# corners as (distance from the centre, angle in degrees)
_CORNERS: dict[str, list[tuple[float, float]]] = {
    "square": [(1.0, 45 + 90 * k) for k in range(4)],
    "triangle": [(1.1, 120 * k) for k in range(3)],
    "cross": [(r, 90 * k + a) for k in range(4) for r, a in ((1.05, -17), (1.05, 17), (0.44, 45))],
    "star": [(1.15 if k % 2 == 0 else 0.5, 36 * k) for k in range(10)],
}


class Attention(nn.Module):
    """Multi-head self-attention over tokens [batch, tokens, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed: Tensor = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Transformer block: layer norm before attention and before a GELU perceptron."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), nn.Sequential(nn.Linear(width, 2 * width), nn.GELU())
        self.out = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.out(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class SqueezeExcite(nn.Module):
    """Channels of a map [batch, channels, height, width] weighted by a sigmoid gate of their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class DemoNet(nn.Module):
    """Convolutions, batch norm, ReLU, max-pool, SiLU, squeeze-excite, then two transformer blocks.

    Takes RGB pixels float32 [batch, 3, 64, 64] in [-1, 1]; gives logits [batch, 6], in the order of `CLASSES`.
    """

    def __init__(self, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 12, 3, 1, 1, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 24, 3, 2, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(24, 48, 3, 1, 1, bias=False),
            nn.BatchNorm2d(48),
            nn.SiLU(),
        )
        self.gate = SqueezeExcite(48)
        self.patches = nn.Conv2d(48, width, 2, 2)
        self.position = nn.Parameter(torch.randn(1, (SIZE // 8) ** 2, width) * 0.02)
        self.blocks = nn.Sequential(Block(width, heads), Block(width, heads))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(self.gate(self.stem(x))).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(tokens + self.position)).mean(1))  # type: ignore[no-any-return]


def demo_model() -> nn.Module:
    """The network with its trained weights, in eval mode.

    Returns:
        A module from pixels float32 [batch, 3, 64, 64] in [-1, 1] to logits [batch, 6].
    """
    model = DemoNet()
    asset = resources.files("fxpullback.export") / "assets" / "demo.safetensors"
    model.load_state_dict(load(asset.read_bytes()))
    return model.eval()


def draw(seed: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw `n` pictures; the same seed draws the same pictures.

    Args:
        seed: which pictures; any integer from 0.
        n: how many.

    Returns:
        Pixels float32 [n, 3, 64, 64] in [-1, 1]; classes int64 [n], an index into `CLASSES`; and masks bool
        [n, 64, 64], true on the object, what it encloses, and two pixels around it.
    """
    rng = np.random.default_rng(seed)
    classes = rng.integers(len(CLASSES), size=n)
    drawn = [_picture(rng, CLASSES[c]) for c in classes]
    pixels = np.stack([picture for picture, _ in drawn]).astype(np.float32)
    masks = np.stack([mask for _, mask in drawn])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(classes), torch.from_numpy(masks)


def _picture(rng: Generator, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """One picture [64, 64, 3] in [-1, 1] and its mask [64, 64]."""
    canvas = _background(rng)
    radius = rng.uniform(8.5, 14)
    reach = 1.15 * radius + _MARGIN + 1.5
    centre = rng.uniform(reach, SIZE - reach, 2)
    object_, inside = _outline(name, centre * _SCALE, radius * _SCALE, rng.uniform(0, 2 * math.pi))
    left, top = (int(c - radius / 2) * _SCALE for c in centre)
    side = int(radius) * _SCALE
    behind = np.asarray(canvas.crop((left, top, left + side, top + side)), dtype=float).mean((0, 1))
    canvas.paste(_colour_unlike(rng, behind), mask=object_)
    pixels = np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=float) / 127.5 - 1
    pixels += rng.normal(0, rng.uniform(0.02, 0.12), pixels.shape)
    mask = inside.resize((SIZE, SIZE), Image.Resampling.BOX).point(lambda v: 255 if v > 127 else 0)
    mask = mask.filter(ImageFilter.MaxFilter(2 * _MARGIN + 1))
    return pixels.clip(-1, 1), np.asarray(mask) > 0


def _background(rng: Generator) -> Image.Image:
    """A smooth field of colour with lines and scribbles, larger by `_SCALE` than the picture."""
    cells = int(rng.integers(2, 7))
    middle, spread = rng.uniform(70, 185, 3), rng.uniform(10, 60)
    field = (middle + rng.normal(0, spread, (cells, cells, 3))).clip(0, 255).astype(np.uint8)
    canvas = Image.fromarray(field).resize((SIZE * _SCALE, SIZE * _SCALE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(2, 6))):
        points = rng.uniform(0, SIZE * _SCALE, (int(rng.integers(2, 6)), 2))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        pen.line([(float(x), float(y)) for x, y in points], fill=colour, width=int(rng.integers(3, 10)), joint="curve")
    return canvas


def _colour_unlike(rng: Generator, behind: NDArray[np.float64]) -> tuple[int, int, int]:
    """A random colour that stands out from `behind`."""
    for _ in range(50):
        colour = rng.integers(0, 256, 3)
        if np.abs(colour - behind).max() > 90:
            break
    return int(colour[0]), int(colour[1]), int(colour[2])


def _outline(name: str, centre: NDArray[np.float64], radius: float, angle: float) -> tuple[Image.Image, Image.Image]:
    """The object as it is painted, and with what it encloses; both 8-bit, larger by `_SCALE` than the picture."""
    painted = Image.new("L", (SIZE * _SCALE, SIZE * _SCALE), 0)
    pen = ImageDraw.Draw(painted)
    if name in ("disc", "ring"):
        pen.circle((centre[0], centre[1]), 0.9 * radius, fill=255)
        inside = painted.copy()
        if name == "ring":
            pen.circle((centre[0], centre[1]), 0.5 * radius, fill=0)
        return painted, inside
    turned = [(r * radius, math.radians(a) + angle) for r, a in _CORNERS[name]]
    pen.polygon([(centre[0] + r * math.cos(a), centre[1] + r * math.sin(a)) for r, a in turned], fill=255)
    return painted, painted
