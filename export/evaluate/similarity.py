"""How alike two series or two maps are. What says nothing is like nothing: a constant has correlation 0."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Values: TypeAlias = npt.NDArray[Any]

FLAT = 1e-12
"""A spread below this share of the largest value is rounding, and counts as none."""


def pearson(a: Values, b: Values) -> float:
    """Correlation of two series of any shape; 0 where one of them is constant."""
    x, y = (np.asarray(values, dtype=np.float64).ravel() for values in (a, b))
    dx, dy = x - x.mean(), y - y.mean()
    if _is_flat(x, dx) or _is_flat(y, dy):
        return 0.0
    return float(np.clip(dx @ dy / np.sqrt((dx @ dx) * (dy @ dy)), -1, 1))


def spearman(a: Values, b: Values) -> float:
    """Correlation of ranks; equal values share the mean of their ranks."""
    return pearson(ranks(a), ranks(b))


def cosine(a: Values, b: Values) -> float:
    """Cosine of the angle between two series; 0 where one of them is zero."""
    x, y = (np.asarray(values, dtype=np.float64).ravel() for values in (a, b))
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else 0.0


def sameness(a: Values, b: Values) -> float:
    """Rank correlation of two maps without its sign: a map that is turned over shows the same things.

    1 for two that are equal, constants too: a map that stays the same is the same.
    """
    return 1.0 if np.array_equal(a, b) else abs(spearman(a, b))


def ranks(values: Values) -> Values:
    """Ranks from 0, of the values in a row; equal values share their mean."""
    flat = np.asarray(values).ravel()
    _, inverse, counts = np.unique(flat, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    found: Values = (last - (counts - 1) / 2)[inverse]
    return found


def _is_flat(values: Values, deviations: Values) -> bool:
    return bool(np.abs(deviations).max(initial=0) <= FLAT * max(np.abs(values).max(initial=0), FLAT))
