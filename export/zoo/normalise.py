"""The normalisation of a network's weights as a module that stands in front of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """Pixels in [-1, 1] to the mean and standard deviation that weights were trained with."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        mean64, std64 = (torch.tensor(value, dtype=torch.float64).view(1, -1, 1, 1) for value in (mean, std))
        self.register_buffer("scale", (0.5 / std64).float())
        self.register_buffer("shift", ((0.5 - mean64) / std64).float())

    def forward(self, x: Tensor) -> Tensor:
        """float32 [batch, channels, H, W] to the same shape."""
        return x * self.scale + self.shift

    @classmethod
    def in_front(cls, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
        """`network` behind the normalisation; its modules keep their names under `network.`"""
        return nn.Sequential(OrderedDict(normalise=cls(mean, std), network=network)).eval().requires_grad_(False)
