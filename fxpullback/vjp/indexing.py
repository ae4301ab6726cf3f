"""VJP rules of operators that look values up by index, and of sliding windows.

`ct` is the cotangent of the output; y, in the code `out`, is the primal output. A rule returns one cotangent for each
tensor argument, ct_x for x. `fxpullback.vjp.rule` explains this and the values ZERO, ABSENT and NOT_DIFFERENTIABLE.

Their adjoints add values into places, without any scatter: the adjoint of a lookup is a matrix product with one-hot
rows, that of sliding windows a sum of shifted copies. Indices are integers and NOT_DIFFERENTIABLE.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from fxpullback.contract.errors import DifferentiateError
from fxpullback.graph.ir import aten
from fxpullback.graph.shapes import places
from fxpullback.vjp.rule import NOT_DIFFERENTIABLE, vjp
from fxpullback.vjp.shape import pad_axis


def _one_hot(index: Tensor, size: int, like: Tensor, axis: int = 0) -> Tensor:
    """One-hot rows `[*index.shape, size]` in the type of `like`: one where the index points, zero elsewhere.

    Args:
        index: where along an axis.
        size: its size.
        like: of which type the rows are.
        axis: which axis it is; the first is the batch, along which nothing is looked up.

    Raises:
        DifferentiateError: the axis is the batch.
    """
    if isinstance(size, torch.SymInt) and axis == 0:
        raise DifferentiateError(
            "a place is looked up along the batch, whose size is free. Take a place in each sample by "
            "itself, as x[torch.arange(x.shape[0]), place] or torch.gather do."
        )
    here: Tensor = _wrapped(index, size).unsqueeze(-1) == places(size, index)
    return here.to(like.dtype)


def _wrapped(index: Tensor, size: int) -> Tensor:
    """The index with negative entries counted from the front of an axis of `size`."""
    return torch.where(index < 0, index + size, index)


@vjp(aten.index_select.default, kind="linear")
def index_select(ct: Tensor, out: Tensor, x: Tensor, dim: int, index: Tensor) -> tuple[Any, Any]:
    """y[.., i, ..] = x[.., index[i], ..]:  ct_x[.., j, ..] = sum of ct[.., i, ..] over all i with index[i] = j.

    i and j run along dim. An index without axes counts as one of one place. ct_index = NOT_DIFFERENTIABLE.
    """
    index = index if index.ndim else index.unsqueeze(0)
    return _spread_back(ct, x, dim % x.ndim, index), NOT_DIFFERENTIABLE


def _spread_back(ct: Tensor, x: Tensor, axis: int, index: Tensor) -> Tensor:
    """A tensor of the shape of x: along `axis`, slice i of ct is added to its slice index[i]."""
    rows = _one_hot(index, x.shape[axis], ct, axis)
    return torch.matmul(ct.transpose(axis, -1), rows).transpose(axis, -1)


@vjp(aten.index.Tensor, kind="linear")
def index(ct: Tensor, out: Tensor, x: Tensor, indices: list[Any]) -> tuple[Any, Any]:
    """y = x[indices]:  ct_x[j] = sum of ct[i] over all places i of the output that read x[j].

    The indexed axes are joined to one, and the indices to one index. If the indexed axes are not neighbours,
    ct_x = NOT_DIFFERENTIABLE. ct_indices = NOT_DIFFERENTIABLE, one for each axis.
    """
    where = [i for i, index in enumerate(indices) if index is not None]
    if any(b != a + 1 for a, b in itertools.pairwise(where)):
        return NOT_DIFFERENTIABLE, [NOT_DIFFERENTIABLE] * len(indices)
    first, last = where[0], where[-1]
    flat = _wrapped(indices[first], x.shape[first])
    for axis in where[1:]:
        flat = flat * x.shape[axis] + _wrapped(indices[axis], x.shape[axis])
    count = 1
    for axis in where:
        count = count * x.shape[axis]
    grid = flat.ndim
    rows = _one_hot(flat.reshape([-1]), count, ct, first)
    joined = ct.reshape([*ct.shape[:first], -1, *ct.shape[first + grid :]])
    spread = torch.matmul(joined.transpose(first, -1), rows).transpose(first, -1)
    shape = [*x.shape[:first], *x.shape[first : last + 1], *x.shape[last + 1 :]]
    return spread.reshape(shape), [NOT_DIFFERENTIABLE] * len(indices)


@vjp(aten.gather.default, kind="linear")
def gather(ct: Tensor, out: Tensor, x: Tensor, dim: int, index: Tensor, sparse_grad: bool = False) -> tuple[Any, Any]:
    """y[.., i, ..] = x[.., n[.., i, ..], ..]:  ct_x[.., j, ..] = sum of ct[.., i, ..] where n[.., i, ..] = j.

    n is the index; i and j run along dim, the sum over i. Along every other axis n may be shorter than x; behind its
    end nothing was read, and ct_x = 0. ct_index = NOT_DIFFERENTIABLE.
    """
    axis = dim % x.ndim
    rows = _one_hot(index.transpose(axis, -1), x.shape[axis], ct, axis)
    moved = torch.matmul(ct.transpose(axis, -1).unsqueeze(-2), rows).squeeze(-2)
    moved = moved.transpose(axis, -1)
    for other in range(x.ndim):
        if other != axis:
            moved = pad_axis(moved, other, 0, x.shape[other] - index.shape[other])
    return moved, NOT_DIFFERENTIABLE


@vjp(aten.unfold.default, kind="linear")
def unfold(ct: Tensor, out: Tensor, x: Tensor, dim: int, size: int, step: int) -> tuple[Any]:
    """y[.., w, .., k] = x[.., w * step + k, ..]:  ct_x = overlap_add(ct): each window is added where it was read."""
    return (overlap_add(ct, dim % x.ndim, x.shape[dim], size, step),)


def overlap_add(ct: Tensor, axis: int, length: int, size: int, step: int) -> Tensor:
    """Adjoint of sliding windows: out[.., i, ..] = sum of ct[.., w, .., k] over all w, k with w * step + k = i.

    A place is i = step * block + phase. For one phase the result is a sum of shifted copies of ct, one place a block.
    The phases are then interleaved, so no zeros have to be put between values.

    Args:
        ct: windows `[.., count, .., size]`: `count` windows along `axis`, their entries along the last axis.
        axis: the axis the windows slide along, counted from the front.
        length: size of the result along `axis`.
        size: number of entries of a window.
        step: distance from one window to the next.

    Returns:
        `[.., length, ..]`, one axis less than `ct`; zero where no window reads.
    """
    count = ct.shape[axis]
    blocks = count + (size - 1) // step
    phases = []
    for phase in range(step):
        terms = [
            pad_axis(ct.select(-1, phase + step * shift), axis, shift, blocks - count - shift)
            for shift in range((size - phase + step - 1) // step)
        ]
        phases.append(sum(terms[1:], terms[0]) if terms else None)
    empty = next(p for p in phases if p is not None) * 0.0
    filled = [empty if p is None else p for p in phases]
    whole = filled[0] if step == 1 else torch.stack(filled, axis + 1)
    if step > 1:
        whole = whole.reshape([*ct.shape[:axis], blocks * step, *ct.shape[axis + 1 : -1]])
    have = blocks * step
    if have > length:
        return aten.slice.Tensor(whole, axis, 0, length, 1)  # type: ignore[no-any-return]
    return pad_axis(whole, axis, 0, length - have)


@vjp(aten.im2col.default, kind="linear")
def im2col(
    ct: Tensor, out: Tensor, x: Tensor, kernel: list[int], dilation: list[int], padding: list[int], stride: list[int]
) -> tuple[Any]:
    """y = windows of x as columns:  ct_x = col2im(ct), every window added where it was read."""
    return (aten.col2im.default(ct, list(x.shape[-2:]), kernel, dilation, padding, stride),)


@vjp(aten.col2im.default, kind="linear")
def col2im(
    ct: Tensor,
    out: Tensor,
    x: Tensor,
    size: list[int],
    kernel: list[int],
    dilation: list[int],
    padding: list[int],
    stride: list[int],
) -> tuple[Any]:
    """y = columns of x added as windows:  ct_x = im2col(ct), every window of ct as a column."""
    return (aten.im2col.default(ct, kernel, dilation, padding, stride),)


RULES = (index_select, index, gather, unfold, im2col, col2im)
