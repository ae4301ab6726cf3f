"""Does the map depend on the class, and on what the network learnt? Pure functions of numpy.

A map that stays as it is, whatever class it is asked for or with whatever weights, explains neither. Weights of a file
are drawn anew in `randomise.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from fxpullback.export.evaluate.patches import Array, Real
from fxpullback.export.evaluate.similarity import pearson, sameness


def random_logit(own: Array | Real, other: Array | Real) -> float:
    """Correlation of the maps for a class and for a random other one; 1 where they are equal. Lower is better.

    Sixt, Granz and Landgraf, When Explanations Lie, 2020.
    """
    return 1.0 if np.array_equal(own, other) else pearson(own, other)


def other_class(index: int, classes: int, rng: Generator) -> int:
    """Any class but `index`."""
    drawn = int(rng.integers(classes - 1))
    return drawn + (drawn >= index)


def randomisation(own: Real, randomised: Real) -> float:
    """Rank correlation, without its sign, of a map with that under random weights. Lower is better.

    Adebayo et al., Sanity Checks for Saliency Maps, 2018.
    """
    return sameness(own, randomised)
