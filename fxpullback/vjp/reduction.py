"""VJP rules of reductions, sorting and running sums.

`ct` is the cotangent of the output; y, in the code `out`, is the primal output. A rule returns one cotangent for each
tensor argument, ct_x for x. `fxpullback.vjp.rule` explains this and the values ZERO, ABSENT and NOT_DIFFERENTIABLE.

In the formulas ct and y have the reduced dims, of size one, and broadcast along them. With keepdim=False they come
without these dims, and `restore` puts them back. No dims means all dims.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fxpullback.graph.ir import aten
from fxpullback.graph.shapes import over, places
from fxpullback.vjp.rule import ABSENT, NOT_DIFFERENTIABLE, vjp


def dimensions(x: Tensor, dims: Any) -> list[int]:
    """The reduced dims of x, counted from the front. `dims` is one number, a list, or None or empty for all of them."""
    given = [dims] if isinstance(dims, int) else list(dims or range(x.ndim))
    return [d % x.ndim for d in given]


def restore(ct: Tensor, x: Tensor, dims: Any, keepdim: bool) -> Tensor:
    """A reduced tensor with its reduced dims back, of size one.

    Args:
        ct: the reduced tensor: a cotangent or a primal output.
        x: the tensor before the reduction.
        dims: the reduced dims, as `dimensions` takes them.
        keepdim: whether the reduction kept them; then there is nothing to do.

    Returns:
        `ct` with as many dims as `x`.
    """
    if keepdim:
        return ct
    for d in sorted(dimensions(x, dims)):
        ct = ct.unsqueeze(d)
    return ct


@vjp(aten.sum.dim_IntList, kind="linear")
def total(ct: Tensor, out: Tensor, x: Tensor, dims: Any, keepdim: bool = False, dtype: Any = None) -> tuple[Any]:
    """y = sum of x over dims:  ct_x = ct, repeated along dims."""
    return (restore(ct, x, dims, keepdim).expand(x.shape),)


@vjp(aten.sum.default, aten.mean.default, kind="linear")
def total_of_all(ct: Tensor, out: Tensor, x: Tensor, dtype: Any = None) -> tuple[Any]:
    """y = sum or mean of all of x, the batch too:  ct_x = NOT_DIFFERENTIABLE; y belongs to no single sample."""
    return (NOT_DIFFERENTIABLE,)


@vjp(aten.mean.dim, kind="linear")
def mean(ct: Tensor, out: Tensor, x: Tensor, dims: Any, keepdim: bool = False, dtype: Any = None) -> tuple[Any]:
    """y = mean of x over dims:  ct_x = ct / n, repeated along dims; n values are averaged."""
    return (over(restore(ct, x, dims, keepdim), _count(x, dims)).expand(x.shape),)


def _count(x: Tensor, dims: Any) -> Any:
    """The number of values that are reduced to one; it may be free."""
    count: Any = 1
    for d in dimensions(x, dims):
        count = count * x.shape[d]
    return count


@vjp(aten.cumsum.default, kind="linear")
def cumsum(ct: Tensor, out: Tensor, x: Tensor, dim: int, dtype: Any = None) -> tuple[Any]:
    """y[i] = sum of x[j] over j <= i along dim:  ct_x[j] = sum of ct[i] over i >= j."""
    return (torch.flip(torch.cumsum(torch.flip(ct, [dim]), dim), [dim]),)


@vjp(aten.amax.default, aten.amin.default, kind="nonlinear")
def extreme(ct: Tensor, out: Tensor, x: Tensor, dims: Any = (), keepdim: bool = False) -> tuple[Any]:
    """y = max or min of x over dims:  ct_x = ct * 1[x = y] / m, m the number of values with x = y."""
    chosen = (x == restore(out, x, dims, keepdim)).to(ct.dtype)
    return (chosen * (restore(ct, x, dims, keepdim) / chosen.sum(dimensions(x, dims), True)),)


@vjp(aten.max.dim, aten.min.dim, kind="nonlinear")
def extreme_along(ct: tuple[Any, ...], out: tuple[Any, ...], x: Tensor, dim: int, keepdim: bool = False) -> tuple[Any]:
    """y[0] = max or min of x along dim, y[1] = its place:  ct_x = ct[0] * 1[place = y[1]].

    At a tie the place that torch picked takes all.
    """
    return (_to_places(ct[0], out[1], x, dim, keepdim),)


def _to_places(ct: Tensor, index: Tensor, x: Tensor, dim: int, keepdim: bool) -> Tensor:
    """ct at the place along `dim` that `index` names, zero elsewhere; ct and index are reduced along `dim`."""
    axis = dim % x.ndim
    numbers = places(x.shape[axis], x).reshape([-1] + [1] * (x.ndim - 1 - axis))
    return torch.where(numbers == restore(index, x, [axis], keepdim), restore(ct, x, [axis], keepdim), 0.0)


@vjp(aten.topk.default, aten.sort.default, aten.sort.stable, kind="nonlinear")
def ordered(ct: tuple[Any, ...], out: tuple[Any, ...], x: Tensor, *options: Any) -> tuple[Any]:
    """y[0] = sorted values of x along dim, y[1] = their places:  ct_x = zeros with ct[0] at the places y[1].

    The last integer in `options` is dim, in front of which topk has k. Without one, it is the last dim.
    """
    numbers = [o for o in options if isinstance(o, int) and not isinstance(o, bool)]
    axis = (numbers[-1] if numbers else -1) % x.ndim
    counted = places(x.shape[axis], x)
    rows = (out[1].transpose(axis, -1).unsqueeze(-1) == counted).to(ct[0].dtype)
    return (torch.matmul(ct[0].transpose(axis, -1).unsqueeze(-2), rows).squeeze(-2).transpose(axis, -1),)


@vjp(aten.var.correction, kind="nonlinear")
def variance(
    ct: Tensor, out: Tensor, x: Tensor, dims: Any = None, correction: Any = None, keepdim: bool = False
) -> tuple[Any]:
    """y = var(x) over dims:  ct_x = ct * 2 * (x - mean(x)) / (n - correction), of n values; correction None is 1."""
    return (_of_variance(ct, x, dims, correction, keepdim),)


@vjp(aten.std.correction, kind="nonlinear")
def deviation(
    ct: Tensor, out: Tensor, x: Tensor, dims: Any = None, correction: Any = None, keepdim: bool = False
) -> tuple[Any]:
    """y = std(x) over dims:  ct_x = ct / y * (x - mean(x)) / (n - correction), of n values; correction None is 1."""
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
    """y = (var(x), mean(x)) over dims:  ct_x = ct[0] * 2 * (x - mean(x)) / (n - correction) + ct[1] / n, of n values.

    A term is left out if its ct is ABSENT. A correction of None is 1.
    """
    of_variance = None if ct[0] is ABSENT else _of_variance(ct[0], x, dims, correction, keepdim)
    of_mean = None if ct[1] is ABSENT else mean.function(ct[1], out[1], x, dims, keepdim)[0]
    if of_variance is None or of_mean is None:
        return (of_mean if of_variance is None else of_variance,)
    return (of_variance + of_mean,)


def _of_variance(ct: Tensor, x: Tensor, dims: Any, correction: Any, keepdim: bool) -> Tensor:
    """ct * 2 * (x - mean(x)) / (n - correction), ct the cotangent of the variance."""
    degrees = _count(x, dims) - (1 if correction is None else correction)
    centred = x - x.mean(dimensions(x, dims), keepdim=True)
    result: Tensor = centred * over(restore(ct, x, dims, keepdim) * 2, degrees)
    return result


@vjp(aten.linalg_vector_norm.default, kind="nonlinear")
def vector_norm(
    ct: Tensor, out: Tensor, x: Tensor, order: float = 2, dims: Any = None, keepdim: bool = False, dtype: Any = None
) -> tuple[Any]:
    """y = |x| over dims, p = order:  ct_x = ct * sign(x) * (|x| / y)^(p - 1), zero where x = 0 or y = 0.

    Order 2: ct * x / y. Order 1: ct * sign(x). Order inf or -inf: ct * sign(x) * 1[|x| = y] / m, m the number of values
    with |x| = y. Order 0 is written out when a model is captured.
    """
    length, up = restore(out, x, dims, keepdim), restore(ct, x, dims, keepdim)
    if order == 1:
        return (torch.sign(x) * up,)
    if math.isinf(order):
        chosen = (torch.abs(x) == length).to(ct.dtype)
        return (torch.sign(x) * chosen * (up / chosen.sum(dimensions(x, dims), True)),)
    safe = torch.where(length == 0, 1.0, length)
    if order == 2:
        return (torch.where(length == 0, 0.0, x * (up / safe)),)
    ratio = torch.abs(x) / safe
    positive = torch.where(ratio == 0, 1.0, ratio)
    return (torch.where(ratio == 0, 0.0, torch.sign(x) * up * torch.pow(positive, order - 1)),)


@vjp(aten.logsumexp.default, kind="nonlinear")
def logsumexp(ct: Tensor, out: Tensor, x: Tensor, dims: Any, keepdim: bool = False) -> tuple[Any]:
    """y = log(sum(exp(x))) over dims:  ct_x = ct * exp(x - y)."""
    return (restore(ct, x, dims, keepdim) * torch.exp(x - restore(out, x, dims, keepdim)),)


RULES = (
    total, total_of_all, mean, cumsum, extreme, extreme_along, ordered, variance, deviation, var_mean, vector_norm,
    logsumexp,
)  # fmt: skip
