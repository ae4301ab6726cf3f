"""Smoothing and enlarging of maps."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Real: TypeAlias = npt.NDArray[np.float64]


def smoothed(values: npt.NDArray[Any], deviation: float) -> Real:
    """Gaussian smoothing of [..., height, width], the edges repeated; `deviation` in pixels."""
    reach = max(1, round(3 * deviation))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(deviation, 1e-3)) ** 2)
    weights /= weights.sum()
    values = np.asarray(values, dtype=np.float64)
    for axis in (-1, -2):
        pad = [(0, 0)] * values.ndim
        pad[axis] = (reach, reach)
        padded, side = np.pad(values, pad, mode="edge"), values.shape[axis]
        values = sum(weight * np.take(padded, range(k, k + side), axis) for k, weight in enumerate(weights))
    return values


def enlarged(maps: npt.NDArray[Any], height: int, width: int) -> Real:
    """Bilinear enlargement of [..., rows, columns]; values sit in the middle of their cells, as in torch and ONNX."""
    values = np.asarray(maps, dtype=np.float64)
    for axis, side in ((-2, height), (-1, width)):
        held = values.shape[axis]
        at = np.clip((np.arange(side) + 0.5) * held / side - 0.5, 0, held - 1)
        low = np.minimum(at.astype(np.int64), max(held - 2, 0))
        share = (at - low).reshape((-1, 1) if axis == -2 else (1, -1))
        high = np.minimum(low + 1, held - 1)
        values = np.take(values, low, axis) * (1 - share) + np.take(values, high, axis) * share
    return values
