"""Values added to places or put there, diagonals and counts of borders, written out in basic operators.

Where torch scatters, a product with one-hot rows does: it has a forward and an adjoint everywhere.
"""

from __future__ import annotations

from typing import Any

import torch

from fxpullback.contract.errors import CaptureError
from fxpullback.graph.ir import aten
from fxpullback.graph.shapes import is_free, places, same_shape, same_size


def _hits(x: Any, dim: int, index: Any) -> Any:
    """`[size, count]`: whether a place of an axis is the one that an index says."""
    index = index if index.ndim else index.unsqueeze(0)
    wrapped = torch.where(index < 0, index + x.shape[dim], index)
    return places(x.shape[dim], x).unsqueeze(1) == wrapped.unsqueeze(0)


def _along(x: Any, dim: int, flags: Any) -> Any:
    """Flags of the places of an axis, in a shape that broadcasts with x."""
    return flags.reshape(*[1] * (dim % x.ndim), -1, *[1] * (x.ndim - 1 - dim % x.ndim))


def _spread(dim: int, hits: Any, source: Any) -> Any:
    """Rows of the source along an axis, summed up where they hit."""
    source = source if source.ndim else source.unsqueeze(0)
    turned = torch.matmul(source.transpose(dim, -1), hits.to(source.dtype).transpose(0, 1))
    return turned.transpose(dim, -1)


def index_add(recorder: Any, x: Any, dim: int, index: Any, source: Any, alpha: Any = 1) -> Any:
    """The source added to x at places of an axis."""
    added = _spread(dim, _hits(x, dim, index), source)
    return x + (added if alpha == 1 else added * alpha)


def index_copy(recorder: Any, x: Any, dim: int, index: Any, source: Any) -> Any:
    """The source in place of x at places of an axis, all of them different."""
    hits = _hits(x, dim, index)
    return torch.where(_along(x, dim, aten.any.dim(hits, 1)), _spread(dim, hits, source), x)


def index_fill(recorder: Any, x: Any, dim: int, index: Any, value: Any) -> Any:
    """A number at places of an axis."""
    return torch.where(_along(x, dim, aten.any.dim(_hits(x, dim, index), 1)), value, x)


def scatter_add(recorder: Any, x: Any, dim: int, index: Any, source: Any) -> Any:
    """The source added to x at places along an axis, others for each line of it."""
    lines, told = source.transpose(dim, -1), index.transpose(dim, -1)
    hits = places(x.shape[dim], x).unsqueeze(1) == told.unsqueeze(-2)
    added = torch.matmul(hits.to(x.dtype), lines.unsqueeze(-1)).squeeze(-1)
    return x + added.transpose(dim, -1)


def in_lines(x: Any, dim: Any, index: Any, source: Any) -> bool:
    """Whether the lines of an index and of its source are those of x, along an axis."""
    shapes = [[n for i, n in enumerate(t.shape) if i != dim % x.ndim] for t in (x, index, source)]
    return same_shape(index.shape, source.shape) and same_shape(shapes[0], shapes[1])


def diagonal(recorder: Any, x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """The values on a diagonal of two axes, as a last axis."""
    first, second = dim1 % x.ndim, dim2 % x.ndim
    rest = [i for i in range(x.ndim) if i not in (first, second)]
    rows, columns = x.shape[first], x.shape[second]
    if is_free(rows) or is_free(columns):
        return _of_a_square(x.permute([*rest, first, second]), offset)
    start, count = max(-offset, 0), min(rows - max(-offset, 0), columns - max(offset, 0))
    at = (
        (torch.arange(count, device=x.device) + start) * columns + torch.arange(count, device=x.device) + max(offset, 0)
    )
    flat = x.permute([*rest, first, second]).reshape(*[x.shape[i] for i in rest], rows * columns)
    return aten.index_select.default(flat, len(rest), at)


def _of_a_square(x: Any, offset: int) -> Any:
    """The diagonal of the last two axes, of one free size: how well the samples of two batches fit, each its own."""
    rows, columns = x.shape[-2:]
    if offset or not same_size(rows, columns):
        raise CaptureError(
            f"a diagonal of axes [{rows}, {columns}], which are free, at offset {offset}: of free sizes only the main "
            "diagonal of a square can be taken. Multiply the two sides sample by sample, (a * b).sum(-1)."
        )
    own = places(rows, x).unsqueeze(1) == places(columns, x).unsqueeze(0)
    return aten.sum.dim_IntList(torch.where(own, x, 0.0), [-1])


def nansum(recorder: Any, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """A sum in which what is no number counts as zero."""
    kept = torch.where(x != x, 0.0, x)
    return aten.sum.dim_IntList(kept, list(range(x.ndim)) if dim is None else dim, keepdim, dtype=dtype)


def ldexp(recorder: Any, x: Any, power: Any) -> Any:
    """x times a power of two."""
    return x * torch.pow(2.0, power)


def bucketize(recorder: Any, x: Any, borders: Any, out_int32: bool = False, right: bool = False) -> Any:
    """How many of the borders, in rising order, are below each value."""
    below = borders <= x.unsqueeze(-1) if right else borders < x.unsqueeze(-1)
    return aten.sum.dim_IntList(below.to(torch.int32 if out_int32 else torch.int64), [-1])


def searchsorted(
    recorder: Any, borders: Any, x: Any, out_int32: bool = False, right: bool = False, side: Any = None,
    sorter: Any = None,
) -> Any:  # fmt: skip
    """The same, borders of their own for each row of x where they have rows."""
    if sorter is not None:
        raise CaptureError("searchsorted with a sorter: sort the borders first, borders.gather(-1, sorter).")
    borders = borders if borders.ndim == 1 else borders.unsqueeze(-2)
    return bucketize(recorder, x, borders, out_int32, right or side == "right")
