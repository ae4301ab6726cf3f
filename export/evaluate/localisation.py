"""Does the map point at what makes the class, where that is known? Pure functions of numpy."""

from __future__ import annotations

import numpy as np

from fxpullback.export.evaluate.patches import Array, Mask, Real

GRID = 2
"""A mosaic has this many pictures beside each other, and so many above each other."""


def shrunk(picture: Array, height: int, width: int) -> Array:
    """A picture [channels, height, width] made smaller, each new pixel the mean of those it covers."""
    values = np.asarray(picture, dtype=np.float64)
    for axis, side in ((1, height), (2, width)):
        held = values.shape[axis]
        edges = np.arange(side + 1) * held / side
        whole = np.concatenate([np.zeros_like(values.take([0], axis)), values.cumsum(axis)], axis)
        low = np.minimum(edges.astype(np.int64), held - 1)
        share = (edges - low).reshape((-1, 1) if axis == 1 else (1, -1))
        upto = whole.take(low, axis) * (1 - share) + whole.take(low + 1, axis) * share
        values = np.diff(upto, axis=axis) * side / held
    return values.astype(np.float32)


def mosaic(pictures: list[Array]) -> tuple[Array, list[Mask]]:
    """Four pictures in one of the same size.

    Returns:
        The mosaic [channels, height, width], and for each picture where it lies, bool [height, width].
    """
    channels, height, width = pictures[0].shape
    rows = [height // GRID, height - height // GRID]
    columns = [width // GRID, width - width // GRID]
    made, masks = np.zeros((channels, height, width), np.float32), []
    for place, picture in enumerate(pictures):
        row, column = divmod(place, GRID)
        top, left = sum(rows[:row]), sum(columns[:column])
        at = (slice(top, top + rows[row]), slice(left, left + columns[column]))
        made[:, *at] = shrunk(picture, rows[row], columns[column])
        mask = np.zeros((height, width), dtype=bool)
        mask[at] = True
        masks.append(mask)
    return made, masks


def share_inside(flat: Real, mask: Mask) -> float:
    """The share of the map's positive part that falls inside a mask; 0 for a map without one.

    On mosaics this is Focus: Arias-Duart et al., Focus! Rating XAI Methods and Finding Biases, 2022; and grid pointing:
    Böhle, Fritz and Schiele, Convolutional Dynamic Alignment Networks, 2021. Chance is the mask's share of the area.
    """
    positive = np.maximum(flat, 0)
    whole = float(positive.sum())
    return float(positive[mask].sum()) / whole if whole > 0 else 0.0


def points_inside(flat: Real, mask: Mask) -> float:
    """The pointing game: 1 where the map is largest inside a mask, 0 where it is outside.

    Zhang et al., Top-down Neural Attention by Excitation Backprop, 2016. Of several largest places each counts its
    share, so a constant map gets the mask's share of the area.
    """
    return float(mask[flat == flat.max()].mean())
