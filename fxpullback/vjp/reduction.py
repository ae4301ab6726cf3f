"""VJP rules of reductions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fxpullback.graph.ir import aten
from fxpullback.graph.shapes import over, places
from fxpullback.vjp.rule import ABSENT, NOT_DIFFERENTIABLE, vjp


def dimensions(x: Tensor, dims: Any) -> list[int]:
    """The reduced dimensions, counted from the front; no dimensions means all of them."""
    given = [dims] if isinstance(dims, int) else list(dims or range(x.ndim))
    return [d % x.ndim for d in given]


def restore(ct: Tensor, x: Tensor, dims: Any, keepdim: bool) -> Tensor:
    """A reduced tensor with its reduced dimensions back as ones."""
    if keepdim:
        return ct
    for d in sorted(dimensions(x, dims)):
        ct = ct.unsqueeze(d)
    return ct


@vjp(aten.sum.dim_IntList, kind="linear")
def total(ct: Tensor, out: Tensor, x: Tensor, dims: Any, keepdim: bool = False, dtype: Any = None) -> tuple[Any]:
    return (restore(ct, x, dims, keepdim).expand(x.shape),)


@vjp(aten.sum.default, aten.mean.default, kind="linear")
def total_of_all(ct: Tensor, out: Tensor, x: Tensor, dtype: Any = None) -> tuple[Any]:
    return (NOT_DIFFERENTIABLE,)  # sums over the batch: no explanation of one sample


@vjp(aten.mean.dim, kind="linear")
def mean(ct: Tensor, out: Tensor, x: Tensor, dims: Any, keepdim: bool = False, dtype: Any = None) -> tuple[Any]:
    return (over(restore(ct, x, dims, keepdim), _count(x, dims)).expand(x.shape),)


def _count(x: Tensor, dims: Any) -> Any:
    count: Any = 1
    for d in dimensions(x, dims):
        count = count * x.shape[d]
    return count


@vjp(aten.cumsum.default, kind="linear")
def cumsum(ct: Tensor, out: Tensor, x: Tensor, dim: int, dtype: Any = None) -> tuple[Any]:
    return (torch.flip(torch.cumsum(torch.flip(ct, [dim]), dim), [dim]),)


@vjp(aten.amax.default, aten.amin.default, kind="nonlinear")
def extreme(ct: Tensor, out: Tensor, x: Tensor, dims: Any = (), keepdim: bool = False) -> tuple[Any]:
    chosen = (x == restore(out, x, dims, keepdim)).to(ct.dtype)
    return (chosen * (restore(ct, x, dims, keepdim) / chosen.sum(dimensions(x, dims), True)),)


@vjp(aten.max.dim, aten.min.dim, kind="nonlinear")
def extreme_along(ct: tuple[Any, ...], out: tuple[Any, ...], x: Tensor, dim: int, keepdim: bool = False) -> tuple[Any]:
    return (_to_places(ct[0], out[1], x, dim, keepdim),)


def _to_places(ct: Tensor, index: Tensor, x: Tensor, dim: int, keepdim: bool) -> Tensor:
    axis = dim % x.ndim
    numbers = places(x.shape[axis], x).reshape([-1] + [1] * (x.ndim - 1 - axis))
    return torch.where(numbers == restore(index, x, [axis], keepdim), restore(ct, x, [axis], keepdim), 0.0)


@vjp(aten.topk.default, aten.sort.default, kind="nonlinear")
def ordered(ct: tuple[Any, ...], out: tuple[Any, ...], x: Tensor, *options: Any) -> tuple[Any]:
    """Values in sorted order: each goes back to where it was; topk has k in front of the dimension, sort has not."""
    numbers = [o for o in options if isinstance(o, int) and not isinstance(o, bool)]
    axis = (numbers[-1] if numbers else -1) % x.ndim
    counted = places(x.shape[axis], x)
    rows = (out[1].transpose(axis, -1).unsqueeze(-1) == counted).to(ct[0].dtype)
    return (torch.matmul(ct[0].transpose(axis, -1).unsqueeze(-2), rows).squeeze(-2).transpose(axis, -1),)


@vjp(aten.var.correction, kind="nonlinear")
def variance(
    ct: Tensor, out: Tensor, x: Tensor, dims: Any = None, correction: Any = None, keepdim: bool = False
) -> tuple[Any]:
    return (_of_variance(ct, x, dims, correction, keepdim),)


@vjp(aten.std.correction, kind="nonlinear")
def deviation(
    ct: Tensor, out: Tensor, x: Tensor, dims: Any = None, correction: Any = None, keepdim: bool = False
) -> tuple[Any]:
    return (_of_variance(ct / (out * 2), x, dims, correction, keepdim),)


@vjp(aten.var_mean.correction, kind="nonlinear")
def var_mean(
    ct: tuple[Any, ...],
    out: tuple[Any, ...],
    x: Tensor,
    dims: Any = None,
    correction: Any = None,
    keepdim: bool = False,
) -> tuple[Any]:
    of_variance = None if ct[0] is ABSENT else _of_variance(ct[0], x, dims, correction, keepdim)
    of_mean = None if ct[1] is ABSENT else mean.function(ct[1], out[1], x, dims, keepdim)[0]
    if of_variance is None or of_mean is None:
        return (of_mean if of_variance is None else of_variance,)
    return (of_variance + of_mean,)


def _of_variance(ct: Tensor, x: Tensor, dims: Any, correction: Any, keepdim: bool) -> Tensor:
    degrees = _count(x, dims) - (1 if correction is None else correction)
    centred = x - x.mean(dimensions(x, dims), keepdim=True)
    result: Tensor = centred * over(restore(ct, x, dims, keepdim) * 2, degrees)
    return result


@vjp(aten.linalg_vector_norm.default, kind="nonlinear")
def vector_norm(
    ct: Tensor, out: Tensor, x: Tensor, order: float = 2, dims: Any = None, keepdim: bool = False, dtype: Any = None
) -> tuple[Any]:
    if order not in (1, 2):
        return (NOT_DIFFERENTIABLE,)
    length, up = restore(out, x, dims, keepdim), restore(ct, x, dims, keepdim)
    if order == 1:
        return (torch.sign(x) * up,)
    return (torch.where(length == 0, 0.0, x * (up / torch.where(length == 0, 1.0, length))),)


@vjp(aten.logsumexp.default, kind="nonlinear")
def logsumexp(ct: Tensor, out: Tensor, x: Tensor, dims: Any, keepdim: bool = False) -> tuple[Any]:
    return (restore(ct, x, dims, keepdim) * torch.exp(x - restore(out, x, dims, keepdim)),)


RULES = (
    total, total_of_all, mean, cumsum, extreme, extreme_along, ordered, variance, deviation, var_mean, vector_norm,
    logsumexp,
)  # fmt: skip
