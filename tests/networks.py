"""Small networks that hold every kind of operator, each quick to compile."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import Pullback

SIZE = (3, 16, 16)
CLASSES = 5


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """A batch norm whose statistics are not those of its start."""
    norm = nn.BatchNorm2d(channels)
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        assert tensor is not None
        nn.init.uniform_(tensor, 0.5, 1.5)
    return norm


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x)
        return result


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x * torch.sigmoid(self.up(F.silu(self.down(x.mean((2, 3), keepdim=True)))))
        return result


class Attention(nn.Module):
    """Self-attention with two heads; fused, or written out with a bias on the scores."""

    def __init__(self, width: int, tokens: int, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn(2, tokens, tokens))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(-2, -1) * 0.4 + self.bias).softmax(-1) @ v
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return result


class Transformer(nn.Module):
    """Patches, a class token, blocks of attention and GELU, layer norms."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 8, 8)
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 12)), nn.Parameter(torch.randn(1, 5, 12))
        self.attention = Residual(nn.LayerNorm(12), Attention(12, 5, fused))
        self.mlp = Residual(nn.LayerNorm(12), nn.Linear(12, 20), nn.GELU(), nn.Dropout(0.3), nn.Linear(20, 12))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        result: Tensor = self.head(self.norm(self.mlp(self.attention(x)))[:, 0])
        return result


class MultiHead(nn.Module):
    """`nn.MultiheadAttention` over the positions, RMS norm, SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 8, 8)
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.norm = nn.RMSNorm(12, eps=1e-5)
        self.wide, self.narrow = nn.Linear(12, 32), nn.Linear(16, 12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        gate, value = self.wide(self.norm(x)).chunk(2, -1)
        result: Tensor = self.head((x + self.narrow(F.silu(gate) * value)).mean(1))
        return result


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), batch_norm(6), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1),
        Residual(nn.Conv2d(6, 6, 3, padding=1, groups=2), batch_norm(6), nn.LeakyReLU(0.1), nn.Conv2d(6, 6, 1)),
        nn.Conv2d(6, 8, 3, stride=2, dilation=2, padding=1), nn.GELU(), nn.AvgPool2d(2, ceil_mode=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, CLASSES),
    )  # fmt: skip


def mobile() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), batch_norm(6), nn.Hardswish(),
        nn.Conv2d(6, 6, 3, 1, 1, groups=6), batch_norm(6), nn.ReLU6(), SqueezeExcite(6),
        nn.GroupNorm(2, 6), nn.SiLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, CLASSES),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convolutional": convolutional,
    "mobile": mobile,
    "transformer": lambda: Transformer(fused=True),
    "transformer-written-out": lambda: Transformer(fused=False),
    "multi-head": MultiHead,
}


def network(name: str) -> nn.Module:
    """A network in float64, in evaluation mode, the same on every run."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return NETWORKS[name]().double().eval()


@functools.cache
def compiled(name: str, dtype: torch.dtype = torch.float64) -> Pullback:
    """A network compiled for cotangents, once for all tests: none of them may change it."""
    return fxpullback.compile(
        network(name).to(dtype), torch.zeros(1, *SIZE, dtype=dtype), rules=fxpullback.SEMANTIC, target="cotangent"
    )
