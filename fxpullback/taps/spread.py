"""From one axis of a grid to a finer one, so that what is there sums to the same."""

from __future__ import annotations

from torch import Tensor

from fxpullback.graph.resampling import resampling_matrix


def spreading_matrix(size: int, wanted: int) -> Tensor:
    """`[size, wanted]`, float64: linear resampling of one axis, each row scaled to sum to one."""
    matrix = resampling_matrix(size, wanted, "linear").T
    return matrix / matrix.sum(1, keepdim=True)
