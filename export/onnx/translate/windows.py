"""Sliding windows of a picture as columns, and their transpose, without any scatter.

Windows that leave places out are taken by a convolution that gives each place of the window a channel of its own, and
put back by its transpose: strided slices are slow. Others are taken by one slice for each place in the window, and put
back by sums of shifted copies. Of a picture whose size is free: `free_windows`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.convolution import spread
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.free_windows import Windows, picks, put_back, taken
from fxpullback.export.onnx.translate.values import Dim, Value, rank, sizes

aten = torch.ops.aten
MOST_SLICES = 16  # windows of more places are gathered by a constant index
MOST_PICKS = 49  # and of more than these are not taken by a convolution


@dataclass(frozen=True)
class _Axis(Windows):
    """Windows along one axis of `size` places."""

    size: int

    @property
    def count(self) -> int:
        return (self.size + 2 * self.pad - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

    @property
    def tiles(self) -> bool:
        """Whether the windows lie side by side: each place of the input belongs to one at most."""
        return self.stride == self.kernel and self.dilation == 1

    @property
    def blocks(self) -> int:
        """Strides that all windows together reach over."""
        return self.count + self.dilation * (self.kernel - 1) // self.stride

    def offset(self, place: int) -> tuple[int, int]:
        """How many strides a place in the window lies behind its window's first, and the rest."""
        return divmod(place * self.dilation, self.stride)


def _axes(b: Builder, size: Sequence[Dim], *parts: int | Sequence[int]) -> tuple[_Axis, _Axis]:
    down, across = zip(*(spread(part, 2) for part in parts), strict=True)
    height, width = (b.fixed(s, "windows of a picture") for s in size)
    return _Axis(height, *down), _Axis(width, *across)


def _free(size: Sequence[Dim], *parts: int | Sequence[int]) -> list[Windows] | None:
    """The windows of a picture whose size is free; None where it is not."""
    if all(isinstance(side, int) for side in size):
        return None
    down, across = zip(*(spread(part, 2) for part in parts), strict=True)
    return [Windows(size[0], *down), Windows(size[1], *across)]


def im2col(
    b: Builder, x: Value, kernel: Sequence[int], dilation: Sequence[int], pads: Sequence[int], stride: Sequence[int]
) -> Value:
    """Conv that takes each place by itself, or Slice and Concat: windows as `[..., channels * places, windows]`."""
    free = _free(sizes(x)[-2:], kernel, dilation, pads, stride)
    if free is not None:
        return taken(b, x, b.fixed(sizes(x)[-3], "windows of a picture"), free)
    axes = _axes(b, sizes(x)[-2:], kernel, dilation, pads, stride)
    total = rank(x)
    lead = list(sizes(x)[:-2])
    tiles = all(axis.tiles for axis in axes)
    if not tiles and _apart(b, lead, axes):
        channels = b.fixed(lead[1], "windows of a picture")
        around: dict[str, Any] = {
            "pads": [axis.pad for axis in axes] * 2,
            "dilations": [axis.dilation for axis in axes],
        }
        steps = [axis.stride for axis in axes]
        x = b.op("Conv", x, picks(b, channels, axes), strides=steps, group=channels, **around)
        return b.reshape(x, b.out_sizes)
    if any(axis.pad for axis in axes):
        amounts = [*[0] * (total - 2), *(axis.pad for axis in axes)]
        x = b.op("Pad", x, b.const(amounts * 2))
    down, across = axes
    if tiles:
        x = _cropped(b, x, total - 2, [axis.count * axis.kernel for axis in axes])
        x = b.reshape(x, [*lead, down.count, down.kernel, across.count, across.kernel])
        n = total - 2
        x = b.transpose(x, [*range(n), n + 1, n + 3, n, n + 2])
    elif down.kernel * across.kernel <= MOST_SLICES:
        x = b.unsqueeze(x, total - 2)
        places = [p for row in _slices(b, x, total - 1, down) for p in _slices(b, row, total, across)]
        x = b.concat(places, total - 2)
    else:
        rows, columns = (
            np.arange(a.kernel)[:, None] * a.dilation + np.arange(a.count) * a.stride for a in (down, across)
        )
        n = total - 2
        x = b.gather(b.gather(x, rows, n), columns, n + 2)
        x = b.transpose(x, [*range(n), n, n + 2, n + 1, n + 3])
    return b.reshape(x, b.out_sizes)


def _apart(b: Builder, lead: Sequence[Dim], axes: tuple[_Axis, _Axis]) -> bool:
    """Whether a convolution takes the windows, or puts them back, faster than slices: they leave places out."""
    places = math.prod(axis.kernel for axis in axes)
    return len(lead) == 2 and max(axis.stride for axis in axes) > 1 and places <= MOST_PICKS


def _cropped(b: Builder, x: Value, first: int, lengths: Sequence[int], start: Sequence[int] = (0, 0)) -> Value:
    """The last two axes cut to `lengths` from `start`."""
    stops = [s + n for s, n in zip(start, lengths, strict=True)]
    return b.op("Slice", x, b.const(list(start)), b.const(stops), b.const([first, first + 1]))


def _slices(b: Builder, x: Value, at: int, axis: _Axis) -> list[Value]:
    """One slice for each place in the window."""
    starts = [place * axis.dilation for place in range(axis.kernel)]
    reach = (axis.count - 1) * axis.stride + 1
    return [b.slice(x, at, start, start + reach, axis.stride) for start in starts]


def col2im(
    b: Builder,
    x: Value,
    size: Sequence[Dim],
    kernel: Sequence[int],
    dilation: Sequence[int],
    pads: Sequence[int],
    stride: Sequence[int],
) -> Value:
    """ConvTranspose, or Pad and Add of shifted copies: every window's places added where they came from."""
    free = _free(size, kernel, dilation, pads, stride)
    if free is not None:
        return put_back(b, x, b.out_sizes[0], b.fixed(b.out_sizes[-3], "windows of a picture"), free)
    down, across = axes = _axes(b, size, kernel, dilation, pads, stride)
    lead = list(b.out_sizes[:-2])
    shape = [*lead, down.kernel, across.kernel, down.count, across.count]
    n = len(lead)
    whole = b.reshape(x, shape)
    if down.tiles and across.tiles:
        whole = b.transpose(whole, [*range(n), n + 2, n, n + 3, n + 1])
        lengths = [axis.count * axis.kernel for axis in axes]
        return _placed(b, b.reshape(whole, [*lead, *lengths]), lengths, axes)
    if _apart(b, lead, axes):
        return _put_back(b, whole, lead, axes)
    columns = _overlapped(b, _parts(b, whole, n + 1, across), n + 3, n + 4, across)
    phases = [_overlapped(b, _parts(b, column, n, down), n + 2, n + 4, down) for column in columns]
    lengths = [axis.blocks * axis.stride for axis in axes]
    steps = [down.stride, across.stride]
    ordered = [column[phase] for phase, column in itertools.product(range(down.stride), phases)]
    joined = b.reshape(b.concat(ordered, n), [*lead, *steps, down.blocks, across.blocks])
    order = [*range(n), n + 2, n, n + 3, n + 1]
    merged = b.reshape(b.transpose(joined, order) if max(steps) > 1 else joined, [*lead, *lengths])
    return _placed(b, merged, lengths, axes)


def _put_back(b: Builder, x: Value, lead: Sequence[Dim], axes: tuple[_Axis, _Axis]) -> Value:
    """All at once, by the transpose of the convolution that takes them."""
    channels = b.fixed(lead[1], "windows of a picture")
    x = b.reshape(x, [lead[0], channels * math.prod(a.kernel for a in axes), *(a.count for a in axes)])
    behind = [(a.count - 1) * a.stride + a.dilation * (a.kernel - 1) + 1 - a.pad - a.size for a in axes]
    return b.op(
        "ConvTranspose",
        x,
        picks(b, channels, axes),
        group=channels,
        strides=[a.stride for a in axes],
        dilations=[a.dilation for a in axes],
        pads=[*(a.pad for a in axes), *(max(n, 0) for n in behind)],
        output_padding=[max(-n, 0) for n in behind],
    )


def _parts(b: Builder, x: Value, at: int, axis: _Axis) -> list[Value]:
    """The places of the windows, an axis of one left in their stead."""
    if axis.kernel == 1:
        return [x]
    return list(b.ops("Split", x, dtypes=[None] * axis.kernel, axis=at, num_outputs=axis.kernel))


def _overlapped(b: Builder, parts: Sequence[Value], at: int, total: int, axis: _Axis) -> list[Value]:
    """For every remainder modulo the stride, the sum of the shifted places that have it."""
    found: list[list[Value]] = [[] for _ in range(axis.stride)]
    for place, part in enumerate(parts):
        shift, phase = axis.offset(place)
        amounts = [0] * 2 * total
        amounts[at], amounts[total + at] = shift, axis.blocks - axis.count - shift
        found[phase].append(b.op("Pad", part, b.const(amounts)) if any(amounts) else part)
    nothing = None
    if not all(found):
        some = next(terms for terms in found if terms)[0]
        nothing = b.op("Mul", some, b.const(0, b.dtype))
    return [reduce(lambda a, c: b.op("Add", a, c), terms) if terms else nothing for terms in found]  # type: ignore[misc]


def _placed(b: Builder, x: Value, lengths: Sequence[int], axes: Sequence[_Axis]) -> Value:
    """What lies inside the picture: the padding cut off, and zeros where no window reached."""
    n = len(b.out_sizes) - 2
    missing = [max(axis.pad + axis.size - length, 0) for axis, length in zip(axes, lengths, strict=True)]
    if any(missing):
        x = b.op("Pad", x, b.const([0] * (n + 2) + [0] * n + missing))
    if any(axis.pad or length + gap != axis.size for axis, length, gap in zip(axes, lengths, missing, strict=True)):
        x = _cropped(b, x, n, [axis.size for axis in axes], [axis.pad for axis in axes])
    return x


TABLE: dict[OpOverload, Translator] = {aten.im2col.default: im2col, aten.col2im.default: col2im}
