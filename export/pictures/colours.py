"""Colours of drawings, and the scale that numbers are drawn on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[np.uint8]
Ramp: TypeAlias = Sequence[tuple[int, int, int]]

PERCENTILE = 99.5

# Colours at -1, ..., 0, ..., 1: blue through white to red, and from nothing to the strongest heat.
DIVERGING: Ramp = (
    (5, 48, 120),
    (45, 122, 190),
    (150, 200, 228),
    (250, 250, 250),
    (248, 178, 140),
    (214, 72, 60),
    (120, 6, 30),
)
HEAT: Ramp = ((60, 0, 70), (190, 30, 80), (245, 110, 40), (255, 205, 60), (255, 250, 190))
CARRIES: Ramp = (
    (0, 60, 190),
    (40, 110, 220),
    (120, 165, 235),
    (128, 128, 128),
    (255, 200, 90),
    (255, 150, 0),
    (255, 115, 0),
)
"""Blue against, orange for: told apart with any of the common kinds of colour blindness, and from a grey picture."""
SIGNED: Ramp = (
    (0, 40, 130),
    (40, 110, 220),
    (160, 195, 240),
    (252, 252, 252),
    (255, 205, 130),
    (245, 125, 0),
    (150, 60, 0),
)
"""The same two on white, for maps that have no picture under them."""


def scale(values: npt.NDArray[Any]) -> float:
    """What is drawn at full strength; 1 where there is nothing at all."""
    strong = float(np.percentile(np.abs(values), PERCENTILE))
    return strong or float(np.abs(values).max()) or 1.0


def coloured(values: npt.NDArray[Any], colours: Ramp) -> Pixels:
    """[height, width] in [0, 1] through a ramp of colours."""
    stops = np.linspace(0, 1, len(colours))
    channels = [np.interp(np.clip(values, 0, 1), stops, [colour[c] for colour in colours]) for c in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)
