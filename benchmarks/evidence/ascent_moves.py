"""Pictures moved: along the explanation, step by step, and along any direction to a length that is given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from fxpullback.export import Session
from fxpullback.export.evaluate.methods import Indices
from fxpullback.export.evaluate.patches import Real
from fxpullback.unroll import length, normalised

LOW, HIGH = -1.0, 1.0
HALVINGS = 24
Slope = Callable[[Tensor], Tensor]
"""From pictures to what they are moved along: the pullback of a class for each."""

OWN, RUNNER_UP, DRAWN = "own", "runner-up", "drawn"
KINDS = (OWN, RUNNER_UP, DRAWN)


def targets(logits: Real, label: int, rng: Generator) -> Indices:
    """The classes that a picture is moved towards, in the order of `KINDS`.

    Its own class; the highest logit but that one; and one drawn from all the others.

    Args:
        logits: [classes], of the network that is explained.
        label: The picture's own class.
        rng: Where the third is drawn from.
    """
    order = [int(index) for index in np.argsort(-logits, kind="stable") if index != label]
    return np.array([label, order[0], rng.choice(order[1:])], np.int64)


def slope_of(session: Session, classes: Indices) -> Slope:
    """The pullback of a served file towards a class for each picture."""
    return lambda x: torch.from_numpy(session(x.numpy(), classes).pullback)


def climbed(slope: Slope, x: Tensor, alpha: float, steps: int) -> list[Tensor]:
    """x_1 to x_K of `fxpullback.unroll.Ascent(steps, alpha)`: x_{k+1} = clip(x_k + alpha n(p(x_k))).

    Args:
        slope: What a step is taken along.
        x: Pictures [n, channels, height, width] in [-1, 1].
        alpha: Length of a step: L2 over all values of a picture.
        steps: K.
    """
    found = []
    for _ in range(steps):
        x = (x + normalised(slope(x)) * alpha).clamp(LOW, HIGH)
        found.append(x)
    return found


def to_length(x: Tensor, direction: Tensor, wanted: Tensor) -> Tensor:
    """clip(x + s d) with the s, for each picture, that makes it as far from x as is wanted.

    Where the clipped picture cannot be so far, it goes as far as it can. The distance grows with s, so s is found by
    halving.

    Args:
        x: Pictures [n, channels, height, width] in [-1, 1].
        direction: d, of the same shape.
        wanted: L2 distances [n, 1, 1, 1].
    """

    def at(scale: Tensor) -> Tensor:
        return (x + scale * direction).clamp(LOW, HIGH)

    low = torch.zeros_like(wanted)
    high = wanted / length(direction).clamp(min=1e-20)
    for _ in range(HALVINGS):
        high = torch.where(length(at(high) - x) < wanted, high * 2, high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        short = length(at(middle) - x) < wanted
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return at(high)
