"""Parts of a tensor at places that another tensor names, and orderings.

All are gathers: what is written to such places has no translation, as a file holds no scatter.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.values import BOOL, INT64, Dim, Value, axis_of, dim, rank, sizes

aten = torch.ops.aten


def index_select(b: Builder, x: Value, axis: int, indices: Value) -> Value:
    """Gather along one axis, which stays also where there is one place alone."""
    return b.gather(x, indices if rank(indices) else b.unsqueeze(indices, 0), axis_of(axis, rank(x)))


def embedding(b: Builder, weight: Value, indices: Value, *_: object) -> Value:
    """Gather of rows of a table."""
    return b.gather(weight, indices, 0)


def gather(b: Builder, x: Value, axis: int, indices: Value, *_: object) -> Value:
    """GatherElements: one place along an axis for every place of the others."""
    return b.op("GatherElements", x, indices, axis=axis_of(axis, rank(x)))


def index(b: Builder, x: Value, indices: list[Value | None]) -> Value:
    """Gather, of the joined axes where several are indexed, or GatherND where one of those is free.

    A mask must be a constant, as the number of results must not depend on the input.
    """
    places = _without_masks(b, indices)
    axes = [axis for axis, place in enumerate(places) if place is not None]
    chosen = [place for place in places if place is not None]
    if len(axes) == 1:
        return b.gather(x, chosen[0], axes[0])
    before = sizes(x)
    together = axes == list(range(axes[0], axes[0] + len(axes)))
    if not together:
        rest = [axis for axis in range(rank(x)) if axis not in axes]
        x = b.transpose(x, [*axes, *rest])
    first = axes[0] if together else 0
    if not all(isinstance(before[axis], int) for axis in axes):
        return _gather_nd(b, x, chosen, first)
    lengths = [b.fixed(before[axis], "index") for axis in axes]
    shape = list(sizes(x))
    shape[first : first + len(axes)] = [int(np.prod(lengths))]
    return b.gather(b.reshape(x, shape), _flat_index(b, chosen, lengths), first)


def _without_masks(b: Builder, indices: list[Value | None]) -> list[Value | None]:
    places: list[Value | None] = []
    for place in indices:
        if place is None or place.dtype != BOOL:
            places.append(place if place is None else b.cast(place, INT64))
            continue
        mask = b.array(place)
        if mask is None:
            raise b.error("indexing with a computed mask", "The number of results must not depend on the input.")
        places.extend(b.const(found) for found in np.nonzero(mask))
    return places


def _flat_index(b: Builder, indices: list[Value], lengths: list[int]) -> Value:
    """Indices into several axes as indices into their product."""
    arrays = [array for array in map(b.array, indices) if array is not None]
    if len(arrays) == len(indices):
        strides = [math.prod(lengths[i + 1 :]) for i in range(len(lengths))]
        return b.const(sum(array % n * step for array, n, step in zip(arrays, lengths, strides, strict=True)))
    stride, total = 1, None
    for place, length in reversed(list(zip(indices, lengths, strict=True))):
        wrapped = b.op("Mod", place, b.const(length))
        part = wrapped if stride == 1 else b.op("Mul", wrapped, b.const(stride))
        total = part if total is None else b.op("Add", total, part)
        stride *= length
    assert total is not None
    return total


def _gather_nd(b: Builder, x: Value, indices: list[Value], first: int) -> Value:
    """The same where an indexed axis is free: no product of sizes is known."""
    n, total = len(indices), rank(x)
    shape = torch.broadcast_shapes(*([1] * rank(place) for place in indices))
    after: list[Dim] = list(b.out_sizes)[first : first + len(shape)]
    x = b.transpose(x, [*range(first, first + n), *range(first), *range(first + n, total)])
    columns = [b.unsqueeze(b.expand(place, after), len(shape)) for place in indices]
    result = b.op("GatherND", x, b.concat(columns, len(shape)))
    moved = len(shape)
    return b.op("Transpose", result, perm=_perm(moved, first, len(b.out_sizes))) if first else result


def _perm(moved: int, first: int, total: int) -> list[int]:
    return [*range(moved, moved + first), *range(moved), *range(moved + first, total)]


def topk(b: Builder, x: Value, k: Dim, axis: int, largest: bool, ordered: bool) -> tuple[Value, ...]:
    """TopK: the largest or smallest along an axis, and their places."""
    if rank(x) == 0:
        return x, b.const(0)
    return b.ops(
        "TopK",
        x,
        b.size(k),
        dtypes=(None, INT64),
        axis=axis_of(axis, rank(x)),
        largest=int(largest),
        sorted=int(ordered),
    )


def sort(b: Builder, x: Value, axis: int, descending: bool) -> tuple[Value, ...]:
    """TopK of all places along an axis, which keeps ties in their order."""
    val = b.out[0] if isinstance(b.out, (tuple, list)) else b.out
    return topk(b, x, dim(val.shape[axis]), axis, descending, True)


def sort_stable(b: Builder, x: Value, stable: object, axis: int, descending: bool) -> tuple[Value, ...]:
    """TopK of all places along an axis, which keeps ties in their order."""
    return sort(b, x, axis, descending)


TABLE: dict[OpOverload, Translator] = {
    aten.index_select.default: index_select,
    aten.embedding.default: embedding,
    aten.gather.default: gather,
    aten.index.Tensor: index,
    aten._unsafe_index.Tensor: index,
    aten.topk.default: topk,
    aten.sort.default: sort,
    aten.sort.stable: sort_stable,
}
