"""Parts of a picture: grids of patches, groups of pixels, what stands for a part that is taken away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float32]
Real: TypeAlias = npt.NDArray[np.float64]
Parts: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

BLUR = 0.05
"""Standard deviation of the blur that stands for nothing, as a share of a picture's side."""


def grid_of(height: int, width: int, grid: int) -> Parts:
    """A picture cut into `grid` x `grid` patches, of sizes as equal as they can be.

    Returns:
        int64 [height, width]: the number of the patch that a pixel belongs to, row by row.
    """
    rows, columns = (np.arange(side) * min(grid, side) // side for side in (height, width))
    return np.asarray(rows[:, None] * min(grid, width) + columns[None], dtype=np.int64)


def ranked(flat: Real, groups: int) -> Parts:
    """Pixels in groups by the map's value, as equal in number as they can be; group 0 holds the largest.

    Equal values keep the order of the pixels.

    Returns:
        int64 [height, width]: the number of the group that a pixel belongs to.
    """
    order = np.argsort(-flat.ravel(), kind="stable")
    found = np.empty(flat.size, np.int64)
    found[order] = np.arange(flat.size) * min(groups, flat.size) // flat.size
    return found.reshape(flat.shape)


def sums(flat: npt.NDArray[Any], parts: Parts) -> Real:
    """The sum of a map [height, width] over each part."""
    weights = flat.ravel().astype(np.float64)
    return np.bincount(parts.ravel(), weights=weights, minlength=int(parts.max()) + 1).astype(np.float64)


def means(flat: npt.NDArray[Any], parts: Parts) -> Real:
    """The mean of a map [height, width] over each part."""
    return sums(flat, parts) / np.bincount(parts.ravel())


def blurred(picture: npt.NDArray[Any], deviation: float) -> Real:
    """Gaussian smoothing of [..., height, width], the edges repeated; `deviation` in pixels."""
    reach = max(1, round(3 * deviation))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(deviation, 1e-3)) ** 2)
    weights /= weights.sum()
    values = np.asarray(picture, dtype=np.float64)
    for axis in (-1, -2):
        pad = [(0, 0)] * values.ndim
        pad[axis] = (reach, reach)
        padded, side = np.pad(values, pad, mode="edge"), values.shape[axis]
        values = sum(weight * np.take(padded, range(k, k + side), axis) for k, weight in enumerate(weights))
    return values


def blank_of(picture: Array) -> Array:
    """What stands for the parts of a picture [channels, height, width] that are taken away: the picture, blurred."""
    return blurred(picture, BLUR * max(picture.shape[-2:])).astype(np.float32)


def without(picture: Array, blank: Array, masks: Mask) -> Array:
    """Copies of a picture, one for each mask [n, height, width], with `blank` where the mask is true."""
    return np.where(masks[:, None], blank[None], picture[None])


def chosen(parts: Parts, choices: Mask) -> Mask:
    """Masks [n, height, width] of the parts that `choices` [n, parts] names."""
    return choices[:, parts]


def batches(count: int, size: int) -> Iterator[slice]:
    """`count` things in batches of at most `size`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def enlarged(maps: npt.NDArray[Any], height: int, width: int) -> Array:
    """Bilinear enlargement of [n, rows, columns]; values sit in the middle of their cells, as in torch and ONNX."""
    values = np.asarray(maps, dtype=np.float64)
    for axis, side in ((1, height), (2, width)):
        held = values.shape[axis]
        at = np.clip((np.arange(side) + 0.5) * held / side - 0.5, 0, held - 1)
        low = np.minimum(at.astype(np.int64), max(held - 2, 0))
        share = (at - low).reshape((-1, 1) if axis == 1 else (1, -1))
        high = np.minimum(low + 1, held - 1)
        values = np.take(values, low, axis) * (1 - share) + np.take(values, high, axis) * share
    return values.astype(np.float32)
