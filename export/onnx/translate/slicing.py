"""Parts of a tensor at places that are known when the model is compiled, and padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.values import FIRST, LAST, Dim, Scalar, Value, axis_of, dim, rank, sizes

aten = torch.ops.aten


def slice_(b: Builder, x: Value, axis: int, start: Dim | None, end: Dim | None, step: int = 1) -> Value:
    """Slice: `x[start:end:step]` along one axis; no node where it takes everything."""
    if b.out_sizes == sizes(x) and step == 1:
        return x
    start = 0 if start is None else start
    end = LAST if end is None or end == sizes(x)[axis] else end
    return b.op("Slice", x, b.size(start), b.size(end), b.const([axis_of(axis, rank(x))]), b.const([step]))


def narrow(b: Builder, x: Value, axis: int, start: Dim, length: Dim) -> Value:
    """Slice: `length` places from `start`; a negative `start` counts from the end."""
    size = sizes(x)[axis]
    if isinstance(start, int) and start < 0:
        start = size + start
    return slice_(b, x, axis, start, start + length)


def select(b: Builder, x: Value, axis: int, index: Dim) -> Value:
    """Gather of one place along an axis, and the axis gone."""
    axis = axis_of(axis, rank(x))
    if isinstance(index, int):
        return b.gather(x, index, axis)
    return b.squeeze(b.gather(x, b.size(index), axis), axis)


def unbind(b: Builder, x: Value, axis: int = 0) -> list[Value]:
    """Gather of each place along an axis."""
    return [b.gather(x, i, axis_of(axis, rank(x))) for i in range(len(b.out))]


def split(b: Builder, x: Value, how: object, axis: int = 0) -> list[Value]:
    """Split into consecutive parts, as long as the graph says."""
    axis = axis_of(axis, rank(x))
    parts = [b.fixed(size, "split") for size in (_size(part, axis) for part in b.out)]
    if len(parts) == 1:
        return [x]
    return list(b.ops("Split", x, b.const(parts), dtypes=[None] * len(parts), axis=axis))


def _size(part: torch.Tensor, axis: int) -> Dim:
    return dim(part.shape[axis])


def flip(b: Builder, x: Value, axes: Sequence[int]) -> Value:
    """Slice with steps of -1: axes backwards."""
    if not axes:
        return x
    n = len(axes)
    axes = [axis_of(axis, rank(x)) for axis in axes]
    flipped = b.op("Slice", x, b.const([-1] * n), b.const([FIRST] * n), b.const(axes), b.const([-1] * n))
    flipped.meta["sizes"] = sizes(x)
    return flipped


def roll(b: Builder, x: Value, shifts: Sequence[int], axes: Sequence[int]) -> Value:
    """Slice and Concat: places moved along axes, round the end."""
    if not axes:
        flat = b.reshape(x, [int(np.prod([b.fixed(size, "roll") for size in sizes(x)]))])
        return b.reshape(_rolled(b, flat, shifts[0], 0, sizes(flat)[0]), b.out_sizes)
    before = sizes(x)
    for shift, axis in zip(shifts, axes, strict=True):
        x = _rolled(b, x, shift, axis_of(axis, len(before)), before[axis])
    return x


def _rolled(b: Builder, x: Value, shift: int, axis: int, size: Dim) -> Value:
    if not isinstance(size, int):
        at = b.op("Mod", b.const([-shift]), b.size(size))
        axes = b.const([axis])
        return b.concat([b.op("Slice", x, at, b.const([LAST]), axes), b.op("Slice", x, b.const([0]), at, axes)], axis)
    cut = -shift % size
    return b.concat([b.slice(x, axis, cut), b.slice(x, axis, 0, cut)], axis) if cut else x


def rot90(b: Builder, x: Value, times: int, axes: Sequence[int]) -> Value:
    """Transpose and Slice with steps of -1: quarter turns in a plane."""
    i, j = (axis_of(axis, rank(x)) for axis in axes)
    perm = list(range(rank(x)))
    perm[i], perm[j] = j, i
    match times % 4:
        case 1:
            return b.transpose(flip(b, x, [j]), perm)
        case 2:
            return flip(b, x, [i, j])
        case 3:
            return flip(b, b.transpose(x, perm), [j])
        case _:
            return x


def constant_pad(b: Builder, x: Value, amounts: Sequence[Any], value: Scalar | None = 0) -> Value:
    """Pad with a number, and Slice where an amount is negative."""
    if any(not isinstance(amount, int) for amount in amounts):
        return _free_pad(b, x, amounts, value or 0)
    before, after = _by_axis(amounts)
    total = rank(x)
    axes = list(range(total - len(before), total))
    crops = [(axis, -min(i, 0), min(j, 0) or LAST) for axis, i, j in zip(axes, before, after, strict=True)]
    crops = [crop for crop in crops if crop[1:] != (0, LAST)]
    if crops:
        x = b.op("Slice", x, *(b.const([crop[part] for crop in crops]) for part in (1, 2, 0)))
    return _padded(b, x, [max(i, 0) for i in before], [max(i, 0) for i in after], total, "constant", value or 0)


def _free_pad(b: Builder, x: Value, amounts: Sequence[Dim], value: Scalar) -> Value:
    """Padding by amounts that depend on free sizes; where one is below zero, Pad crops."""
    before, after = list(amounts[::2])[::-1], list(amounts[1::2])[::-1]
    lead: list[Dim] = [0] * (rank(x) - len(before))
    fill = b.const(value, b.dtype) if value else None
    return b.op("Pad", x, b.shape([*lead, *before, *lead, *after]), fill, mode="constant")


def _by_axis(amounts: Sequence[int]) -> tuple[list[int], list[int]]:
    """torch's padding, last axis first, as what goes before and after each axis, first axis first."""
    return list(amounts[::2])[::-1], list(amounts[1::2])[::-1]


def _padded(
    b: Builder, x: Value, before: list[int], after: list[int], total: int, mode: str, value: Scalar = 0
) -> Value:
    if not any(before + after):
        return x
    lead = [0] * (total - len(before))
    fill = b.const(value, b.dtype) if mode == "constant" and value else None
    return b.op("Pad", x, b.const([*lead, *before, *lead, *after]), fill, mode=mode)


def edge_pad(mode: str) -> Translator:
    """Pad with what the input has there."""

    def translate(b: Builder, x: Value, amounts: Sequence[int]) -> Value:
        return _padded(b, x, *_by_axis(amounts), rank(x), mode)

    return translate


_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(b: Builder, x: Value, amounts: Sequence[int], mode: str, value: float | None) -> Value:
    """Pad with what the input has there; padding with a number is another operator in a captured graph."""
    return _padded(b, x, *_by_axis(amounts), rank(x), _MODES[mode])


def triangle(upper: int) -> Translator:
    """Trilu: one triangle of the last two axes, the rest zero."""

    def translate(b: Builder, x: Value, diagonal: int) -> Value:
        return b.op("Trilu", x, b.const(diagonal), upper=upper)

    return translate


def unfold(b: Builder, x: Value, axis: int, size: int, step: int) -> Value:
    """Gather and Transpose: sliding windows of one axis, as a new last axis."""
    axis = axis_of(axis, rank(x))
    count = b.fixed(b.out_sizes[axis], "unfold")
    windows = b.gather(x, np.arange(count)[:, None] * step + np.arange(size), axis)
    total = rank(x) + 1
    return b.transpose(windows, [*(i for i in range(total) if i != axis + 1), axis + 1])


def one_hot(b: Builder, x: Value, classes: int) -> Value:
    """Equal and Cast: 1 at the class, 0 elsewhere."""
    classes = b.fixed(b.out_sizes[-1], "one_hot")
    return b.cast(b.op("Equal", b.unsqueeze(x, rank(x)), b.const(np.arange(classes))), b.dtype)


TABLE: dict[OpOverload, Translator] = {
    aten.slice.Tensor: slice_,
    aten.slice_copy.Tensor: slice_,
    aten.narrow_copy.default: narrow,
    aten.select.int: select,
    aten.select_copy.int: select,
    aten.unbind.int: unbind,
    aten.split.Tensor: split,
    aten.split_with_sizes.default: split,
    aten.flip.default: flip,
    aten.roll.default: roll,
    aten.rot90.default: rot90,
    aten.constant_pad_nd.default: constant_pad,
    aten.pad.default: pad,
    aten.reflection_pad1d.default: edge_pad("reflect"),
    aten.reflection_pad2d.default: edge_pad("reflect"),
    aten.reflection_pad3d.default: edge_pad("reflect"),
    aten.replication_pad1d.default: edge_pad("edge"),
    aten.replication_pad2d.default: edge_pad("edge"),
    aten.replication_pad3d.default: edge_pad("edge"),
    aten.tril.default: triangle(0),
    aten.triu.default: triangle(1),
    aten.unfold.default: unfold,
    aten.one_hot.default: one_hot,
}
