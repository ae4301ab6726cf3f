"""Several tensors into one, or brought to a common shape."""

from __future__ import annotations

import torch
from torch._ops import OpOverload

from fxpullback.export.translate.builder import Builder, Value, axis_of, dim, rank, sizes
from fxpullback.export.translate.engine import Translator

aten = torch.ops.aten


def cat(b: Builder, tensors: list[Value], axis: int = 0) -> Value:
    """End to end along an axis; torch ignores empty vectors among them."""
    parts = [b.cast(part, b.dtype) for part in tensors if sizes(part) != (0,)]
    return b.concat(parts, axis_of(axis, rank(parts[0])))


def stack(b: Builder, tensors: list[Value], axis: int = 0) -> Value:
    """Along a new axis."""
    axis %= rank(tensors[0]) + 1
    return b.concat([b.unsqueeze(b.cast(part, b.dtype), axis) for part in tensors], axis)


def meshgrid(b: Builder, tensors: list[Value], indexing: str = "ij") -> list[Value]:
    """Every vector, broadcast over the axes of the others."""
    n = len(tensors)
    places = list(range(n))
    if indexing == "xy" and n > 1:
        places[0], places[1] = 1, 0
    results = []
    for place, part, val in zip(places, tensors, b.out, strict=True):
        wide = b.unsqueeze(part, *(axis for axis in range(n) if axis != place))
        results.append(b.expand(wide, [dim(size) for size in val.shape]))
    return results


def broadcast_tensors(b: Builder, tensors: list[Value]) -> list[Value]:
    """All to the common shape."""
    return [b.expand(part, [dim(size) for size in val.shape]) for part, val in zip(tensors, b.out, strict=True)]


TABLE: dict[OpOverload, Translator] = {
    aten.cat.default: cat,
    aten.concat.default: cat,
    aten.stack.default: stack,
    aten.meshgrid.default: meshgrid,
    aten.meshgrid.indexing: meshgrid,
    aten.broadcast_tensors.default: broadcast_tensors,
}
