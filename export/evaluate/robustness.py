"""Does the map hold still where the picture hardly changes? Pure functions of numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from fxpullback.export.evaluate.patches import Array


def max_sensitivity(
    explain: Callable[[Array], Array], picture: Array, start: Array, radius: float, samples: int, rng: Generator
) -> float:
    """How far the map moves at most, as a share of its own norm, when every pixel moves by at most `radius`.

    Yeh et al., On the (In)fidelity and Sensitivity of Explanations, 2019: the largest
    `|map(x + d) - map(x)| / |map(x)|` over random d of the cube. Lower is better, and a constant map has 0.

    Args:
        explain: From pictures to maps, of the class that is explained.
        picture: [channels, height, width].
        start: Its map.
        radius: In units of pixels.
        samples: How many d.
        rng: What draws them.
    """
    norm = float(np.linalg.norm(start.astype(np.float64)))
    moved = picture[None] + rng.uniform(-radius, radius, (samples, *picture.shape)).astype(np.float32)
    away = (explain(moved).astype(np.float64) - start).reshape(samples, -1)
    largest = float(np.linalg.norm(away, axis=1).max())
    return largest / norm if norm > 0 else float(largest > 0)
