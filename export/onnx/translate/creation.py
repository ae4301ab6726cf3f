"""Tensors that are made from sizes and numbers alone: constants, expanded where a size is free."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.values import BOOL, INT64, Dim, Scalar, Value

aten = torch.ops.aten


def filled(b: Builder, value: Scalar | Value) -> Value:
    """One number in the sizes of the node's output, which may be free."""
    return b.expand(b.operand(value, b.dtype), b.out_sizes)


def full(b: Builder, like: object, value: Scalar | Value, *_: object) -> Value:
    """Expand of one number; `like` is a size, or a tensor of that size."""
    return filled(b, value)


def constant(value: Scalar) -> Translator:
    """Expand of a number that the operator itself implies."""

    def translate(b: Builder, *_: object) -> Value:
        return filled(b, value)

    return translate


def scalar_tensor(b: Builder, value: Scalar, *_: object) -> Value:
    """Constant: a number as a tensor without axes; Cast where the number is a free size."""
    return filled(b, value)


def evaluated(b: Builder, *arguments: Any) -> Value:
    """Constant, computed by torch now: its arguments are all numbers."""
    node = b.node
    given = {name: value for name, value in node.kwargs.items() if name not in ("device", "pin_memory", "layout")}
    return b.const(node.target(*node.args, **given).numpy(), b.dtype)  # type: ignore[operator]


def eye(b: Builder, rows: Dim, *columns: Any) -> Value:
    """Constant: ones where row and column agree; Equal of two Ranges where a size is free."""
    height, width = b.out_sizes
    if isinstance(height, int) and isinstance(width, int):
        return b.const(np.eye(height, width), b.dtype)
    down, across = (_places(b, 0, side, 1) for side in (height, width))
    return b.cast(b.op("Equal", b.unsqueeze(down, 1), b.unsqueeze(across, 0), dtype=BOOL), b.dtype)


def arange(b: Builder, end: Dim, *_: object) -> Value:
    """Constant 0, 1, 2, ...; Range where the end is a free size."""
    return _range(b, 0, end, 1)


def arange_start(b: Builder, start: Dim, end: Dim, *_: object) -> Value:
    """Constant from a start; Range where a bound is a free size."""
    return _range(b, start, end, 1)


def arange_step(b: Builder, start: Dim, end: Dim, step: Dim, *_: object) -> Value:
    """Constant in steps; Range where a bound is a free size."""
    return _range(b, start, end, step)


def _range(b: Builder, start: Any, end: Any, step: Any) -> Value:
    if all(isinstance(part, (int, float)) for part in (start, end, step)):
        return evaluated(b)
    return b.cast(_places(b, start, end, step), b.dtype)


def _places(b: Builder, start: Dim, end: Dim, step: Dim) -> Value:
    return b.op("Range", *(b.squeeze(b.size(part), 0) for part in (start, end, step)), dtype=INT64)


TABLE: dict[OpOverload, Translator] = {
    aten.full.default: full,
    aten.full_like.default: full,
    aten.fill.Tensor: full,
    aten.zeros.default: constant(0),
    aten.zeros_like.default: constant(0),
    aten.empty.memory_format: constant(0),
    aten.empty_like.default: constant(0),
    aten.new_empty.default: constant(0),
    aten.ones.default: constant(1),
    aten.ones_like.default: constant(1),
    aten.scalar_tensor.default: scalar_tensor,
    aten.arange.default: arange,
    aten.arange.start: arange_start,
    aten.arange.start_step: arange_step,
    aten.linspace.default: evaluated,
    aten.eye.default: eye,
    aten.eye.m: eye,
}
