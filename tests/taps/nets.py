"""Small networks whose contributions are known, or whose places can be told apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.networks import Attention, Residual, batch_norm


def falling() -> nn.Module:
    """Three resolutions, residual blocks at all of them, a gate behind every one."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 1, 1),
        nn.Sequential(Residual(nn.Conv2d(6, 6, 3, 1, 1), batch_norm(6)), nn.ReLU()),
        nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), batch_norm(8), nn.ReLU(), Residual(nn.Conv2d(8, 8, 1)), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 10, 3, 2, 1), nn.SiLU(), Residual(nn.Conv2d(10, 10, 1))),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(10, 5),
    ).eval()


class Block(nn.Module):
    """Attention and MLP, each added to the stream."""

    def __init__(self, width: int, tokens: int, fused: bool) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, tokens, fused)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class Vision(nn.Module):
    """A transformer of four blocks, class tokens in front of the places or behind them."""

    def __init__(self, front: int = 1, back: int = 0, fused: bool = True) -> None:
        super().__init__()
        torch.manual_seed(1)
        tokens = 12 + front + back
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.front, self.back = nn.Parameter(torch.randn(1, front, 12)), nn.Parameter(torch.randn(1, back, 12))
        self.place = nn.Parameter(torch.randn(1, tokens, 12))
        self.blocks = nn.Sequential(*(Block(12, tokens, fused) for _ in range(4)))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.front.expand(x.shape[0], -1, -1), x, self.back.expand(x.shape[0], -1, -1)], 1) + self.place
        result: Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return result


class Windows(nn.Module):
    """Windows of a picture, shifted and shifted back, then patches merged: what a place reads is its own patch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.embed, self.mix, self.merge = nn.Conv2d(3, 4, 2, 2), nn.Linear(4, 4), nn.Linear(16, 6)
        self.last, self.head = nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)  # 8 x 12
        shifted = torch.roll(x, (-1, -1), (1, 2))
        windows = shifted.reshape(-1, 4, 2, 6, 2, 4).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 4)
        mixed = self.mix(windows).reshape(-1, 4, 6, 2, 2, 4).permute(0, 1, 3, 2, 4, 5).reshape(-1, 8, 12, 4)
        x = x + torch.roll(mixed, (1, 1), (1, 2))
        x = x.reshape(-1, 4, 2, 6, 2, 4).permute(0, 1, 3, 4, 2, 5).flatten(3)
        x = F.gelu(self.last(self.merge(x)))
        result: Tensor = self.head(x.flatten(1, 2).mean(1))
        return result
