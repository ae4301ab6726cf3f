"""Means over pictures with 95 % intervals, and differences between methods picture by picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

FEW = 8
"""Below so many pictures an interval is given, and said to be rough."""

# The 97.5 % quantile of Student's t for 1, 2, ... degrees of freedom.
_T = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
_Z = 1.959964


@dataclass(frozen=True)
class Mean:
    """A mean over pictures.

    Attributes:
        count: How many pictures.
        mean: Over them; NaN for none.
        low: Lower end of the 95 % interval; NaN for fewer than two pictures.
        high: Its upper end.
    """

    count: int
    mean: float
    low: float
    high: float


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: a table for few degrees of freedom, else the expansion around the normal."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    z, d = _Z, float(freedom)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / d + second / d**2 + third / d**3


def mean_of(values: Sequence[float], *, hits: bool = False) -> Mean:
    """Mean and Student's interval of one value for each picture.

    Hits, which are 0 or 1, have Wilson's interval: it does not shrink to nothing where all are alike.
    """
    count = len(values)
    if count == 0:
        return Mean(0, math.nan, math.nan, math.nan)
    held = np.asarray(values, dtype=np.float64)
    mean = float(held.mean())
    if count == 1:
        return Mean(1, mean, math.nan, math.nan)
    if hits:
        return Mean(count, mean, *_wilson(mean, count))
    reach = t_quantile(count - 1) * float(held.std(ddof=1)) / math.sqrt(count)
    return Mean(count, mean, mean - reach, mean + reach)


def difference(of: Mapping[str, float], reference: Mapping[str, float]) -> Mean:
    """Mean difference of two methods over the pictures that both were measured on, by name."""
    shared = sorted(of.keys() & reference.keys())
    return mean_of([of[name] - reference[name] for name in shared])


def _wilson(share: float, count: int) -> tuple[float, float]:
    square = _Z**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    reach = _Z / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    return middle - reach, middle + reach
