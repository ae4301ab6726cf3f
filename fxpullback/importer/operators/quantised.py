"""Quantised values. Constants are dequantised when a file is read; what is computed passes a gate of steps.

`QuantizeLinear` and what dequantises it again are one operator in torch, whose derivative is one inside the range.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.site import Node, tensor

RANGES = {
    "uint8": (0, 255),
    "int8": (-128, 127),
    "uint16": (0, 65535),
    "int16": (-32768, 32767),
    "uint4": (0, 15),
    "int4": (-8, 7),
}


@dataclass(frozen=True, eq=False)
class Quantised:
    """What `QuantizeLinear` made: the value as it is dequantised with the same scale."""

    value: Tensor
    scale: Any
    zero: Any


class Steps(torch.autograd.Function):
    """Values rounded to steps and kept in a range; inside it the gradient passes as it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
        """`(clamp(round(x / scale) + zero, low, high) - zero) * scale`."""
        placed = torch.round(x / scale) + zero
        ctx.save_for_backward((placed >= low) & (placed <= high))
        return (torch.clamp(placed, low, high) - zero) * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient inside the range, zero outside."""
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None, None, None


def quantise(node: Node, x: Any, scale: Any, zero: Any = None) -> Quantised:
    """To steps of a scale, kept in its range."""
    step, offset = node.constant(1), node.constant(2)
    if step is None or (zero is not None and offset is None):
        raise CaptureError("a scale or zero point that is computed is not supported")
    kind = "uint8" if offset is None else offset.dtype.name
    if kind not in RANGES:
        raise CaptureError(f"values of type {kind} are not supported")
    low, high = RANGES[kind]
    offset = np.zeros_like(step, np.int64) if offset is None else offset.astype(np.int64)
    x = tensor(x)
    sizes = [1] * x.ndim
    if step.size > 1:
        sizes[node.get("axis", 1) % x.ndim] = step.size
    scales, zeros = (torch.from_numpy(np.array(v, np.float32).reshape(sizes)).to(x.dtype) for v in (step, offset))
    made = Steps.apply(x, scales, zeros, low, high)
    return Quantised(made, step, offset)


def dequantise(node: Node, x: Any, scale: Any, zero: Any = None) -> Any:
    """What was quantised, as floating-point numbers."""
    step = node.constant(1)
    if isinstance(x, Quantised):
        if step is None or not np.array_equal(step, x.scale):
            raise CaptureError("it dequantises with another scale than the one it was quantised with")
        return x.value
    values, steps = tensor(x).float(), tensor(scale)
    offset = None if zero is None else tensor(zero).float()
    if steps.ndim == 1 and steps.numel() > 1:
        sizes = [-1 if i == node.get("axis", 1) % values.ndim else 1 for i in range(values.ndim)]
        steps = steps.reshape(sizes)
        offset = None if offset is None else offset.reshape(sizes)
    return (values if offset is None else values - offset) * steps


OPERATORS: dict[str, Callable[..., Any]] = {
    "QuantizeLinear": quantise,
    "DequantizeLinear": dequantise,
    "com.microsoft.QuantizeLinear": quantise,
    "com.microsoft.DequantizeLinear": dequantise,
}
