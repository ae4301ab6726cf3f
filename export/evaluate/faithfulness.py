"""Does the map say what the network does when parts of the picture go? Pure functions of numpy.

All of them take a picture apart: patches of a grid, or groups of pixels in the map's order, are replaced by the blurred
picture. `score` gives for pictures [n, channels, height, width] the logit of the class [n]; `flat` is a map
[height, width]. What a constant map correlates with is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.random import Generator

from fxpullback.export.evaluate.patches import (
    Array,
    Mask,
    Parts,
    Real,
    batches,
    chosen,
    means,
    ranked,
    sums,
    without,
)
from fxpullback.export.evaluate.similarity import pearson, spearman

Score: TypeAlias = Callable[[Array], Real]
CHUNK = 64
"""Copies of a picture that are held at a time."""


def drops(score: Score, picture: Array, blank: Array, parts: Parts, choices: Mask) -> Real:
    """How far the score falls when chosen parts are taken away: float64 [n] for `choices` [n, parts]."""
    start = score(picture[None])[0]
    gone = [score(without(picture, blank, chosen(parts, choices[some]))) for some in batches(len(choices), CHUNK)]
    return np.asarray(start - np.concatenate(gone), dtype=np.float64)


def single(parts: Parts) -> Mask:
    """Every part by itself."""
    return np.eye(int(parts.max()) + 1, dtype=bool)


def occlusion(flat: Real, parts: Parts, fallen: Real) -> float:
    """Correlation, patch by patch, of the map's mean with the drop of the logit when the patch is taken away.

    Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2014, is where occlusion comes from.

    Args:
        flat: The map.
        parts: The patches.
        fallen: `drops` of each patch by itself.
    """
    return pearson(means(flat, parts), fallen)


def faithfulness_correlation(flat: Real, parts: Parts, choices: Mask, fallen: Real) -> float:
    """Correlation of what the map gives to a random set of parts with the drop when that set is taken away.

    Bhatt, Weller and Moura, Evaluating and Aggregating Feature-based Model Explanations, 2020.

    Args:
        flat: The map.
        parts: The parts.
        choices: Random sets of them [n, parts].
        fallen: `drops` of those sets.
    """
    return pearson(choices @ sums(flat, parts), fallen)


def random_sets(rng: Generator, parts: int, size: int, count: int) -> Mask:
    """`count` random sets of `size` parts each."""
    picked = rng.random((count, parts)).argsort(1)[:, :size]
    found = np.zeros((count, parts), dtype=bool)
    np.put_along_axis(found, picked, True, axis=1)
    return found


def faithfulness_estimate(score: Score, picture: Array, blank: Array, flat: Real, groups: int) -> float:
    """Correlation of what the map gives to each group of pixels, in its own order, with the drop without that group.

    Alvarez-Melis and Jaakkola, Towards Robust Interpretability with Self-Explaining Neural Networks, 2018.
    """
    parts = ranked(flat, groups)
    return pearson(sums(flat, parts), drops(score, picture, blank, parts, single(parts)))


def monotonicity(score: Score, picture: Array, blank: Array, flat: Real, groups: int) -> float:
    """The share of steps that do not lower the score, as groups of pixels come back from the least to the most.

    Arya et al., One Explanation Does Not Fit All, 2019, ask whether all steps do: whether this is 1. Quantus gives
    that answer.
    """
    parts = ranked(flat, groups)
    count = int(parts.max()) + 1
    taken = np.tri(count + 1, count, -1, dtype=bool)[::-1]  # all gone, ..., all there; group 0 comes back last
    steps = np.diff(-drops(score, picture, blank, parts, taken))
    return float((steps >= 0).mean())


def monotonicity_correlation(
    score: Score, picture: Array, flat: Real, groups: int, samples: int, rng: Generator
) -> float:
    """Rank correlation of what the map gives to a group, without its sign, with how much random pixels there matter.

    Nguyen and Martinez, On quantitative aspects of model interpretability, 2020.
    """
    parts = ranked(np.abs(flat), groups)
    start = score(picture[None])[0]
    matters = []
    for group in range(int(parts.max()) + 1):
        copies = np.repeat(picture[None], samples, 0)
        at = parts == group
        copies[:, :, at] = rng.uniform(-1, 1, (samples, len(picture), int(at.sum())))
        matters.append(float(((score(copies) - start) ** 2).mean()))
    return spearman(sums(np.abs(flat), parts), np.array(matters))


def infidelity(predicted: Real, fallen: Real) -> tuple[float, float]:
    """How far the map's prediction of random changes is from the true change of the logit, scaled as fits best.

    `E[(beta a - b)^2]` with `beta = E[ab] / E[a^2]`: Yeh et al., On the (In)fidelity and Sensitivity of Explanations,
    2019, with their optimal scale.

    Args:
        predicted: a, what the map predicts for each change.
        fallen: b, by how much the logit falls.

    Returns:
        The infidelity, in squares of logits; and its share of `E[b^2]`, from 0 for a perfect prediction to 1 for one
        that says nothing.
    """
    square = float((predicted**2).mean())
    beta = float((predicted * fallen).mean()) / square if square > 0 else 0.0
    missed = float(((beta * predicted - fallen) ** 2).mean())
    whole = float((fallen**2).mean())
    return missed, missed / whole if whole > 0 else 1.0


def predicted_changes(maps: Array, flat: Real, changes: Array, masks: Mask, *, slope: bool) -> Real:
    """What a map says the logit falls by, for changes of the picture.

    Args:
        maps: The map as its method gives it.
        flat: The same, one value for each pixel.
        changes: Picture minus changed picture, [n, channels, height, width].
        masks: Where they differ, [n, height, width].
        slope: Whether the map is a slope: times the change then; else the sum of what it gives to the changed place.
    """
    if slope:
        return np.asarray(np.einsum("nchw,chw->n", changes.astype(np.float64), maps.astype(np.float64)))
    return np.asarray(np.einsum("nhw,hw->n", masks.astype(np.float64), flat))


def random_squares(rng: Generator, height: int, width: int, count: int, least: float, most: float) -> Mask:
    """Masks of squares at random places, their sides between two shares of the picture's."""
    found = np.zeros((count, height, width), dtype=bool)
    sides = np.maximum(1, np.round(rng.uniform(least, most, count) * min(height, width))).astype(int)
    for mask, side in zip(found, sides, strict=True):
        top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
        mask[top : top + side, left : left + side] = True
    return found
