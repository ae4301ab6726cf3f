"""Several tensors into one, or brought to a common shape."""

from __future__ import annotations

import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.values import Dim, Value, axis_of, rank, sizes

aten = torch.ops.aten


def cat(b: Builder, tensors: list[Value], axis: int = 0) -> Value:
    """Concat along an axis; torch ignores empty vectors among the parts."""
    parts = [b.cast(part, b.dtype) for part in tensors if sizes(part) != (0,)]
    return b.concat(parts, axis_of(axis, rank(parts[0])))


def stack(b: Builder, tensors: list[Value], axis: int = 0) -> Value:
    """Unsqueeze of each part, then Concat along the new axis."""
    axis %= rank(tensors[0]) + 1
    return b.concat([b.unsqueeze(b.cast(part, b.dtype), axis) for part in tensors], axis)


def slice_scatter(
    b: Builder, x: Value, source: Value, axis: int, start: Dim | None, end: Dim | None, step: int = 1
) -> Value:
    """Concat of what comes before the places that are written, what is written, and what comes after."""
    axis = axis_of(axis, rank(x))
    size = b.fixed(sizes(x)[axis], "slice_scatter")
    first, last, _ = slice(_bound(b, start), _bound(b, end)).indices(size)
    if step != 1:
        raise b.error(f"a step of {step}", "Write the places one by one.")
    parts = [b.slice(x, axis, 0, first)] if first else []
    parts.append(b.cast(source, b.dtype))
    parts += [b.slice(x, axis, last)] if last < size else []
    return b.concat(parts, axis)


def _bound(b: Builder, bound: Dim | None) -> int | None:
    return None if bound is None else b.fixed(bound, "slice_scatter")


TABLE: dict[OpOverload, Translator] = {
    aten.cat.default: cat,
    aten.stack.default: stack,
    aten.slice_scatter.default: slice_scatter,
}
