"""Reshapes, permutations, repetitions: what computes no numbers.

Where a result is what the input is already, there is no node.
"""

from __future__ import annotations

import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.values import Dim, Value, axis_of, rank, sizes

aten = torch.ops.aten


def reshape(b: Builder, x: Value, *_: object) -> Value:
    """Reshape, to the shape that the graph says."""
    return b.reshape(x, b.out_sizes)


def expand(b: Builder, x: Value, *_: object) -> Value:
    """Expand, to the shape that the graph says."""
    return b.expand(x, b.out_sizes)


def permute(b: Builder, x: Value, axes: list[int]) -> Value:
    """Transpose: axes in another order."""
    return b.transpose(x, [axis_of(axis, rank(x)) for axis in axes])


def transpose(b: Builder, x: Value, i: int = 0, j: int = 1) -> Value:
    """Transpose: two axes swapped; no node for fewer than two."""
    perm = list(range(rank(x)))
    if len(perm) < 2:
        return x
    i, j = axis_of(i, len(perm)), axis_of(j, len(perm))
    perm[i], perm[j] = perm[j], perm[i]
    return b.transpose(x, perm)


def squeeze(b: Builder, x: Value, axes: int | list[int] | None = None) -> Value:
    """Squeeze: axes of size one removed; torch leaves the others alone."""
    before = sizes(x)
    wanted = range(len(before)) if axes is None else [axes] if isinstance(axes, int) else axes
    gone = [axis for axis in (axis_of(axis, len(before)) for axis in wanted) if before and before[axis] == 1]
    return b.squeeze(x, *gone) if gone else x


def unsqueeze(b: Builder, x: Value, axis: int) -> Value:
    """Unsqueeze: an axis of size one inserted."""
    return b.unsqueeze(x, axis % (rank(x) + 1))


def repeat(b: Builder, x: Value, repeats: list[Dim]) -> Value:
    """Tile, or Expand where an axis of one is repeated: the whole tensor, several times along each axis."""
    missing = len(repeats) - rank(x)
    if missing > 0:
        x = b.unsqueeze(x, *range(missing))
    repeats = [1] * (rank(x) - len(repeats)) + list(repeats)
    if all(times == 1 for times in repeats):
        return x
    if all(times == 1 or size == 1 for times, size in zip(repeats, sizes(x), strict=True)):
        return b.expand(x, b.out_sizes)
    return b.op("Tile", x, b.shape(repeats))


def repeat_interleave(b: Builder, x: Value, repeats: Dim, axis: int | None, *_: object) -> Value:
    """Unsqueeze, Expand and Reshape: every element, several times."""
    if axis is None:
        x = b.reshape(x, [-1]) if rank(x) != 1 else x
        if -1 in sizes(x):
            x.meta["sizes"] = (b.out_sizes[0] // repeats,)
        axis = 0
    axis = axis_of(axis, rank(x))
    before = list(sizes(x))
    wide = [*before[: axis + 1], repeats, *before[axis + 1 :]]
    return b.reshape(b.expand(b.unsqueeze(x, axis + 1), wide), b.out_sizes)


def pixel_shuffle(b: Builder, x: Value, factor: int) -> Value:
    """DepthToSpace, or Reshape and Transpose where there is not one batch axis: channels into space."""
    if rank(x) != 4:
        return _shuffled(b, x, factor, channels_first=True)
    return b.op("DepthToSpace", x, blocksize=factor, mode="CRD")


def pixel_unshuffle(b: Builder, x: Value, factor: int) -> Value:
    """Reshape and Transpose: space into channels; ONNX's SpaceToDepth orders them otherwise."""
    return _shuffled(b, x, factor, channels_first=False)


def _shuffled(b: Builder, x: Value, r: int, channels_first: bool) -> Value:
    *lead, c, h, w = sizes(x)
    n = len(lead)
    if channels_first:
        x = b.reshape(x, [*lead, c // (r * r), r, r, h, w])
        order = [n, n + 3, n + 1, n + 4, n + 2]
    else:
        x = b.reshape(x, [*lead, c, h // r, r, w // r, r])
        order = [n, n + 2, n + 4, n + 1, n + 3]
    return b.reshape(b.transpose(x, [*range(n), *order]), b.out_sizes)


def channel_shuffle(b: Builder, x: Value, groups: int) -> Value:
    """Reshape and Transpose: channels dealt out over groups."""
    batch, channels, *rest = sizes(x)
    x = b.reshape(x, [batch, groups, channels // groups, *rest])
    return b.reshape(b.transpose(x, [0, 2, 1, *range(3, rank(x))]), b.out_sizes)


TABLE: dict[OpOverload, Translator] = {
    aten.reshape.default: reshape,
    aten._reshape_alias.default: reshape,
    aten._reshape_copy.default: reshape,
    aten.view_copy.default: reshape,
    aten.expand.default: expand,
    aten.expand_copy.default: expand,
    aten.permute.default: permute,
    aten.permute_copy.default: permute,
    aten.transpose.int: transpose,
    aten.transpose_copy.int: transpose,
    aten.t_copy.default: transpose,
    aten.squeeze.default: squeeze,
    aten.squeeze.dim: squeeze,
    aten.squeeze.dims: squeeze,
    aten.squeeze_copy.dim: squeeze,
    aten.unsqueeze.default: unsqueeze,
    aten.unsqueeze_copy.default: unsqueeze,
    aten.repeat.default: repeat,
    aten.repeat_interleave.self_int: repeat_interleave,
    aten.pixel_shuffle.default: pixel_shuffle,
    aten.pixel_unshuffle.default: pixel_unshuffle,
    aten.channel_shuffle.default: channel_shuffle,
    aten.native_channel_shuffle.default: channel_shuffle,
}
