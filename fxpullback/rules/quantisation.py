"""Rule for fake quantisation: straight through, as models are trained with it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fxpullback.graph.fake_quantized import FAKE_QUANTIZE, along
from fxpullback.rules.rule import gate

CLIPPED = "straight through as torch has it: nothing passes where values are clipped"
"""What the ledger says where the exact derivative is kept."""


@gate(FAKE_QUANTIZE, verdict="frozen")
def fake_quantize(
    x: Tensor, scale: Tensor, zero: Tensor, axis: int, low: int, high: int, divided: bool = False
) -> Tensor:
    """Fake quantisation: what rounding and clipping take off is held constant.

    A value that is clipped is present, not absent, as one above the ceiling of a ReLU6. Where no level is below
    zero, the quantiser is a ReLU besides, and nothing passes of what lies below zero.

    Primal:  s (clip(round(x / s) + z, low, high) - z)
    Adjoint: ct; if z = low, so that the lowest level is zero, ct * 1[x >= 0]
    """
    lowest: Any = (along(x, zero, axis) - low) * along(x, scale, axis) * -1.0
    return torch.where(x >= torch.where(lowest < 0, -math.inf, lowest), x, 0.0)


QUANTISATION = (fake_quantize,)
