"""Running maxima, products and sums of exponentials, and single places of an order, written out in basic operators.

What runs along an axis is a matrix of all places against all places before them, or a product doubled step by step.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from fxpullback.graph.ir import aten
from fxpullback.graph.shapes import is_free, places


def cummax(recorder: Any, x: Any, dim: int) -> Any:
    """Running maximum and its place, at a tie the last one, as in torch."""
    return _running(x, dim, largest=True)


def cummin(recorder: Any, x: Any, dim: int) -> Any:
    """Running minimum and its place, at a tie the last one, as in torch."""
    return _running(x, dim, largest=False)


def _running(x: Any, dim: int, *, largest: bool) -> Any:
    size = x.shape[dim]
    before = _up_to_here(x, dim, -math.inf if largest else math.inf)
    found, place = (aten.max.dim if largest else aten.min.dim)(torch.flip(before, [-1]), -1)
    return found.transpose(dim, -1), (size - 1 - place).transpose(dim, -1)


def _up_to_here(x: Any, dim: int, rest: float) -> Any:
    """`[.., n, n]`: the axis `dim` of x moved last, and for each of its places those up to it, `rest` behind it."""
    numbers = places(x.shape[dim], x)
    return torch.where(numbers.unsqueeze(0) <= numbers.unsqueeze(1), x.transpose(dim, -1).unsqueeze(-2), rest)


def logcumsumexp(recorder: Any, x: Any, dim: int) -> Any:
    """The logarithm of running sums of exponentials."""
    return torch.logsumexp(_up_to_here(x, dim, -math.inf), [-1]).transpose(dim, -1)


def cumprod(recorder: Any, x: Any, dim: int, dtype: Any = None) -> Any:
    """Running product, doubled step by step: products alone, so its derivative is right where a factor is zero."""
    made, size, step = x if dtype is None else x.to(dtype), x.shape[dim], 1
    if is_free(size):
        return NotImplemented
    made = made.transpose(dim, -1)
    while step < size:
        shifted = aten.constant_pad_nd.default(aten.slice.Tensor(made, -1, 0, size - step), [step, 0], 1.0)
        made, step = made * shifted, 2 * step
    return made.transpose(dim, -1)


def extremes(recorder: Any, x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The smallest value and the largest one; at a tie all share the derivative."""
    axes = list(range(x.ndim)) if dim is None else [dim]
    return aten.amin.default(x, axes, keepdim), aten.amax.default(x, axes, keepdim)


def kthvalue(recorder: Any, x: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th smallest value and its place."""
    return _of_order(x, k - 1, dim, keepdim)


def median(recorder: Any, x: Any, dim: int, keepdim: bool = False) -> Any:
    """The median, the lower one of two, and its place."""
    return _of_order(x, (x.shape[dim] - 1) // 2, dim, keepdim)


def _of_order(x: Any, place: Any, dim: int, keepdim: bool) -> Any:
    found = [aten.select.int(part, dim, place) for part in aten.sort.default(x, dim)]
    return tuple(part.unsqueeze(dim % x.ndim) if keepdim else part for part in found)


def mode(recorder: Any, x: Any, dim: int = -1, keepdim: bool = False) -> Any:
    """The value that is there most often, the smallest of several, and its last place."""
    lines = x.transpose(dim, -1)
    counts = aten.sum.dim_IntList((lines.unsqueeze(-1) == lines.unsqueeze(-2)).to(torch.int64), [-1])
    often = counts == aten.amax.default(counts, [-1], True)
    highest = torch.finfo(x.dtype).max if x.dtype.is_floating_point else torch.iinfo(x.dtype).max
    smallest = aten.amin.default(torch.where(often, lines, highest), [-1], True)
    numbers = places(x.shape[dim], x)
    place = aten.amax.default(torch.where(often & (lines == smallest), numbers, 0), [-1], True)
    found = tuple(part.transpose(dim, -1) for part in (lines.gather(-1, place), place))
    return found if keepdim else tuple(part.squeeze(dim) for part in found)
