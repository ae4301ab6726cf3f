"""Insertion and deletion: how soon the class comes, and goes, when patches come and go in the map's order.

Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, 2018. Pure functions of
numpy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fxpullback.export.evaluate.patches import Array, Mask, Parts, Real, chosen, means, without


def order_of(flat: Real, parts: Parts) -> Parts:
    """Parts by the map's mean, the largest first; equal ones keep their order."""
    return np.argsort(-means(flat, parts), kind="stable")


def stages(order: Parts, steps: int) -> Mask:
    """Which parts have come after each step, from none to all: bool [steps + 1, parts]."""
    count = len(order)
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    reached = np.round(np.linspace(0, count, min(steps, count) + 1)).astype(np.int64)
    return np.asarray(place[None] < reached[:, None])


def curves(
    probability: Callable[[Array], Real], picture: Array, blank: Array, flat: Real, parts: Parts, steps: int
) -> tuple[Real, Real]:
    """The probability of the class as parts are inserted into the blank, and as they are deleted from the picture.

    Returns:
        Two curves, float64 [steps + 1].
    """
    come = chosen(parts, stages(order_of(flat, parts), steps))
    inserted = probability(without(picture, blank, ~come))
    deleted = probability(without(picture, blank, come))
    return inserted, deleted


def area(curve: Real) -> float:
    """Area under a curve over [0, 1], by trapezoids."""
    return float((curve[1:] + curve[:-1]).mean() / 2)
