"""Parts of a picture: grids of patches, groups of pixels, what stands for a part that is taken away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fxpullback.export.pictures.smooth import smoothed

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


def blank_of(picture: Array) -> Array:
    """What stands for the parts of a picture [channels, height, width] that are taken away: the picture, blurred."""
    return smoothed(picture, BLUR * max(picture.shape[-2:])).astype(np.float32)


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
