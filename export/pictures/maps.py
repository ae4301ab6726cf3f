"""Contribution maps as pictures: enlarged to the picture, laid over it in two colours, or brought into focus."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from fxpullback.export.pictures.colours import CARRIES, HEAT, coloured, scale
from fxpullback.export.pictures.smooth import enlarged, smoothed

Array: TypeAlias = npt.NDArray[np.floating[Any]]

FOCUS_RADIUS = 4 / 224
"""Standard deviation of the smoothing of a focus, as a share of the picture's side."""


def focus(contribution: Array, pullback: Array) -> Array:
    """What carries the class, drawn at the pixels that the class hangs on: it has no sign and sums to nothing.

    Args:
        contribution: [..., h, w].
        pullback: [..., channels, height, width].

    Returns:
        float64 [..., height, width], not negative: the positive part of the contribution times |pullback|, summed over
        colours and smoothed by a Gaussian of 4 pixels at a side of 224.
    """
    height, width = pullback.shape[-2:]
    strength = smoothed(np.abs(np.asarray(pullback, dtype=np.float64)).sum(-3), FOCUS_RADIUS * max(height, width))
    found: Array = np.maximum(enlarged(contribution, height, width), 0) * strength
    return found


def contribution_tile(grey: npt.NDArray[Any], contribution: Array) -> Image.Image:
    """A picture in grey under its contributions: orange for the class, blue against it, nothing where there is none.

    Args:
        grey: [height, width] from 0 to 255.
        contribution: [h, w].
    """
    values = enlarged(contribution, *grey.shape)
    share = np.clip(values / scale(values), -1, 1)
    alpha = np.clip(1.1 * np.abs(share) - 0.06, 0, 0.85)[..., None]
    return _mixed(grey, coloured(share / 2 + 0.5, CARRIES), alpha)


def focus_tile(grey: npt.NDArray[Any], contribution: Array, pullback: Array) -> Image.Image:
    """A picture in grey under its focus."""
    values = focus(contribution, pullback)
    share = np.clip(values / scale(values), 0, 1)
    return _mixed(grey, coloured(share, HEAT), np.clip(1.25 * share - 0.08, 0, 0.85)[..., None])


def _mixed(grey: npt.NDArray[Any], colours: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> Image.Image:
    return Image.fromarray((grey[..., None] * (1 - alpha) + colours * alpha).round().astype(np.uint8))
