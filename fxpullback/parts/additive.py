"""What constants an operator adds to its result: for each operator its additive arguments, and their cotangents.

For y = A x + b the cotangent of b is that of y wherever b is broadcast to, and `<b, ct>` is what b adds to the logit. A
row here gives `(b, ct of b)` with the cotangent not yet summed over the axes that b was broadcast along, so that the
samples of a batch stay apart. Which of the arguments are constants is for the caller to say.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from fxpullback.graph.ir import aten


class Term(NamedTuple):
    """Something that is added.

    Attributes:
        argument: the argument of the operator, a tensor or a number.
        cotangent: the cotangent at every place where it is added, or a function that makes it.
        shaped: what is broadcast to the cotangent, where it is not the argument itself; or a function that makes it.
    """

    argument: Any
    cotangent: Any
    shaped: Any = None


def _along_channels(argument: Any, ct: Any, value: Any = None) -> Term:
    """One value a channel, to be broadcast over the places behind."""
    shape = [-1] + [1] * (ct.ndim - 2)
    return Term(argument, ct, lambda: (argument if value is None else value).reshape(shape))


def _scaled(ct: Any, factor: float) -> Any:
    return ct if factor == 1 else ct * factor


def _add(ct: Any, a: Any, b: Any, alpha: float = 1) -> list[Term]:
    return [Term(a, ct), Term(b, _scaled(ct, alpha))]


def _sub(ct: Any, a: Any, b: Any, alpha: float = 1) -> list[Term]:
    return [Term(a, ct), Term(b, _scaled(ct, -alpha))]


def _rsub(ct: Any, a: Any, b: Any, alpha: float = 1) -> list[Term]:
    return [Term(a, _scaled(ct, -alpha)), Term(b, ct)]


def _addcmul(ct: Any, x: Any, *factors: Any) -> list[Term]:
    return [Term(x, ct)]


def _linear(ct: Any, x: Any, weight: Any, bias: Any = None) -> list[Term]:
    return [Term(bias, ct)]


def _addmm(ct: Any, bias: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> list[Term]:
    return [Term(bias, _scaled(ct, beta))]


def _convolution(ct: Any, x: Any, weight: Any, bias: Any, *options: Any) -> list[Term]:
    return [] if bias is None else [_along_channels(bias, ct)]


def _layer_norm(ct: Any, x: Any, shape: Any, weight: Any, bias: Any, eps: float) -> list[Term]:
    return [Term(bias, ct[0])]


def _group_norm(ct: Any, x: Any, groups: int, weight: Any = None, bias: Any = None, *options: Any) -> list[Term]:
    return [] if bias is None else [_along_channels(bias, ct)]


def _batch_norm(
    ct: Any, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, eps: float
) -> list[Term]:
    scale = torch.rsqrt(variance + eps)
    shift = mean * -(scale if weight is None else scale * weight)
    return [_along_channels(mean, ct[0], shift if bias is None else shift + bias)]


def _where(ct: Any, condition: Any, a: Any, b: Any) -> list[Term]:
    return [Term(a, torch.where(condition, ct, 0.0)), Term(b, torch.where(condition, 0.0, ct))]


def _masked_fill(ct: Any, x: Any, mask: Any, value: float) -> list[Term]:
    return [Term(value, torch.where(mask, ct, 0.0))]


def _cat(ct: Any, tensors: Any, dim: int = 0) -> list[Term]:
    terms, start = [], 0
    for tensor in tensors:
        stop = start + tensor.shape[dim]
        terms.append(Term(tensor, partial(aten.slice.Tensor, ct, dim, start, stop, 1)))
        start = stop
    return terms


def _stack(ct: Any, tensors: Any, dim: int = 0) -> list[Term]:
    return [Term(tensor, partial(aten.select.int, ct, dim, i)) for i, tensor in enumerate(tensors)]


def _slice_scatter(
    ct: Any, x: Any, source: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> list[Term]:
    written = partial(aten.slice.Tensor, ct, dim, start, end, step)
    return [
        Term(source, written),
        Term(x, partial(aten.slice_scatter.default, ct, torch.zeros_like(source), dim, start, end, step)),
    ]


def _constant_pad(ct: Any, x: Any, sides: Any, value: float = 0.0) -> list[Term]:
    if not value:
        return []
    border = torch.constant_pad_nd(torch.zeros_like(x), sides, 1.0)
    return [Term(value, ct * border)]


def _pad(ct: Any, x: Any, sides: Any, mode: str = "constant", value: float | None = None) -> list[Term]:
    return _constant_pad(ct, x, sides, value) if mode == "constant" and value else []


ADDITIVE: dict[Any, Callable[..., list[Term]]] = {
    aten.add.Tensor: _add,
    aten.sub.Tensor: _sub,
    aten.rsub.Scalar: _rsub,
    aten.addcmul.default: _addcmul,
    aten.linear.default: _linear,
    aten.addmm.default: _addmm,
    aten.baddbmm.default: _addmm,
    aten.convolution.default: _convolution,
    aten.native_layer_norm.default: _layer_norm,
    aten.group_norm.default: _group_norm,
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    aten.where.self: _where,
    aten.where.ScalarOther: _where,
    aten.where.ScalarSelf: _where,
    aten.masked_fill.Scalar: _masked_fill,
    aten.cat.default: _cat,
    aten.stack.default: _stack,
    aten.slice_scatter.default: _slice_scatter,
    aten.constant_pad_nd.default: _constant_pad,
    aten.pad.default: _pad,
}
"""By operator: (cotangent of the result, *arguments) -> the terms. The cotangent is a tuple for several results."""
