"""A map on another grid, so that what is there sums to the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fxpullback.graph.ir import constant_like
from fxpullback.graph.resampling import resampling_matrix


def spread_over(one: Any, grid: Sequence[int | None]) -> Any:
    """A map `[batch, *extents]` on another grid of as many axes; along one that is free it stays as it is."""
    for axis, extent in enumerate(grid, 1):
        size = one.shape[axis]
        if extent is None or size == extent:
            continue
        matrix = constant_like(moving_matrix(int(size), extent), one)
        one = torch.matmul(one.transpose(axis, -1), matrix).transpose(axis, -1)
    return one


def moving_matrix(size: int, wanted: int) -> Tensor:
    """`[size, wanted]`, float64, rows summing to one: linear resampling to a finer grid, overlaps to a coarser one."""
    if size <= wanted:
        matrix = resampling_matrix(size, wanted, "linear").T
    else:
        ends = torch.arange(size + 1, dtype=torch.float64) * (wanted / size)
        places = torch.arange(wanted, dtype=torch.float64)
        overlap = torch.minimum(ends[1:, None], places + 1) - torch.maximum(ends[:-1, None], places)
        matrix = overlap.clamp(min=0.0)
    return matrix / matrix.sum(1, keepdim=True)
