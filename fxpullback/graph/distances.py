"""Norms and distances in one operator, `aten.linalg_vector_norm`, whose derivative is zero where a norm is zero.

The functions run on tensors and on values of a graph alike.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from fxpullback.graph.ir import STOP_GRADIENT, aten
from fxpullback.graph.shapes import is_free

_BY_PRODUCT = 25  # torch takes distances of more rows than these by a matrix product


def norm(recorder: Any, x: Any, order: Any, dims: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """`aten.norm`: the older name of a vector norm. No order is the second, and no axes are all of them."""
    order, axes = 2 if order is None else order, None if dims is None or list(dims) == [] else list(dims)
    return aten.linalg_vector_norm.default(x, order, axes, keepdim, dtype=dtype)


def count(recorder: Any, x: Any, order: Any, dims: Any, keepdim: bool, dtype: Any = None) -> Any:
    """A vector norm of order 0: how many values are not zero. It has no derivative but zero."""
    nonzero = (x != 0).to(x.dtype if dtype is None else dtype)
    return aten.sum.dim_IntList(nonzero, list(range(x.ndim)) if dims is None else dims, keepdim)


def cdist(a: Any, b: Any, order: float = 2.0, mode: int | None = None) -> Any:
    """Distances between the rows of `a` `[*, n, dim]` and those of `b` `[*, m, dim]`: `[*, n, m]`.

    Args:
        a: rows.
        b: rows; leading axes broadcast.
        order: of the norm.
        mode: as in torch. 1 takes euclidean distances by a matrix product, 2 never does, and 0 does where there are
            more than 25 rows of a kind; a free number of rows, such as the batch, counts as few.
    """
    many = any(not is_free(rows) and rows > _BY_PRODUCT for rows in (a.shape[-2], b.shape[-2]))
    if order == 2 and (mode == 1 or (not mode and many)):
        return by_product(a, b)
    apart = a.unsqueeze(-2) - b.unsqueeze(-3)
    return _largest(apart) if order == math.inf else aten.linalg_vector_norm.default(apart, order, [-1])


def _largest(apart: Any) -> Any:
    """The largest size along the last axis; at a tie each has the whole derivative, as in torch, and not its share."""
    size = torch.abs(apart)
    largest = STOP_GRADIENT(aten.amax.default(size, [-1], True))
    over = torch.where(size == largest, size - largest, 0.0)  # zero, with the derivative of the size
    return largest.squeeze(-1) + aten.sum.dim_IntList(over, [-1])


def by_product(a: Any, b: Any) -> Any:
    """Euclidean distances by a matrix product: the root of `|a|^2 + |b|^2 - 2 a b`, zero where that is not positive."""
    squares = (a * a).sum([-1], True) + (b * b).sum([-1], True).transpose(-1, -2)
    squared = squares - torch.matmul(a, b.transpose(-1, -2)) * 2
    apart = squared > 0
    return torch.where(apart, torch.sqrt(torch.where(apart, squared, 1.0)), 0.0)


def composed(recorder: Any, a: Any, b: Any, order: float, mode: int | None) -> Any:
    """`aten.cdist` of a program."""
    return cdist(a, b, order, mode)


def forward(recorder: Any, a: Any, b: Any, order: float, mode: int | None) -> Any:
    """`aten._cdist_forward`, which torch makes of `cdist` where it takes no matrix product."""
    return cdist(a, b, order, 2)


def euclidean(recorder: Any, a: Any, b: Any) -> Any:
    """`aten._euclidean_dist`, which torch makes of `cdist` where it takes one."""
    return by_product(a, b)
