"""Fake quantisation as one operator: rounding to levels that a scale and a zero point say, straight through in reverse.

torch has many operators for it, some of which watch ranges besides; `fxpullback.capture.quantised` makes them this one.
It stays whole until the end of `lower`, as no factor may be moved across its rounding: what lies halfway between two
levels would be rounded to the other one. For the same reason it says how it comes to a level: torch multiplies with the
inverse of the scale, ONNX divides by the scale.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fxpullback.graph.ir import LIBRARY

_ARGUMENTS = "Tensor x, Tensor scale, Tensor zero, int axis, int low, int high, bool divided=False"
LIBRARY.define(f"fake_quantize({_ARGUMENTS}) -> Tensor")
LIBRARY.define(f"fake_quantize_mask({_ARGUMENTS}) -> Tensor")


def along(x: Any, of_channels: Any, axis: int) -> Any:
    """Scale or zero point in a shape that broadcasts with x: of one number where the axis is -1."""
    return of_channels.reshape([1] * axis + [-1] + [1] * (x.ndim - 1 - axis)) if axis >= 0 else of_channels


def quantized(x: Any, scale: Any, zero: Any, axis: int, low: int, high: int, divided: bool = False) -> Any:
    """Each entry at its level: s (clip(round(x / s) + z, low, high) - z), computed in torch's order, or in ONNX's."""
    level = _levels(x, scale, zero, axis, divided).clamp(low, high)
    return (level - along(x, zero, axis)) * along(x, scale, axis)


def unclipped(x: Any, scale: Any, zero: Any, axis: int, low: int, high: int, divided: bool = False) -> Any:
    """Where the level of an entry is one of the levels there are."""
    level = _levels(x, scale, zero, axis, divided)
    return (level >= low) & (level <= high)


def _levels(x: Any, scale: Any, zero: Any, axis: int, divided: bool) -> Any:
    step = along(x, scale, axis)
    return torch.round(x / step if divided else x * (1.0 / step)) + along(x, zero, axis)


def _fake_quantize(x: Tensor, *settings: Any) -> Tensor:
    with torch.no_grad():
        value = quantized(x, *settings)
        inside = unclipped(x, *settings)
    passed = torch.where(inside, x, 0.0)
    result: Tensor = value.detach() + (passed - passed.detach())
    return result


def _mask(x: Tensor, *settings: Any) -> Tensor:
    mask: Tensor = unclipped(x.detach(), *settings)
    return mask


LIBRARY.impl("fake_quantize", _fake_quantize, "CompositeImplicitAutograd")
LIBRARY.impl("fake_quantize_mask", _mask, "CompositeImplicitAutograd")

FAKE_QUANTIZE = torch.ops.fxpullback.fake_quantize.default
FAKE_QUANTIZE_MASK = torch.ops.fxpullback.fake_quantize_mask.default
