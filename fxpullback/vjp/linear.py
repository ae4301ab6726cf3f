"""VJP rules of matrix products.

`ct` is the cotangent of the output; y, in the code `out`, is the primal output. A rule returns one cotangent for each
tensor argument, ct_x for x. `fxpullback.vjp.rule` explains this and the values ZERO, ABSENT and NOT_DIFFERENTIABLE.

a b is the matrix product, and a^T swaps the last two axes of a. Where the axes in front of those were broadcast, the
reverse walk sums the cotangent down to the shape of its argument.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fxpullback.graph.ir import aten
from fxpullback.vjp.rule import vjp


@vjp(aten.linear.default, kind="product", factors=(0, 1))
def linear(ct: Tensor, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Any, ...]:
    """y = x weight^T + bias:  ct_x = ct weight, ct_weight = ct^T x, ct_bias = sum of ct; the last two over all rows.

    If weight is a vector, y = x weight + bias has one number for each row: ct_x and ct_weight are those of `matmul`.
    """
    if weight.ndim == 1:
        return *_vector_product(ct, x, weight), ct

    def of_weight() -> Tensor:
        return torch.matmul(_rows(ct).transpose(0, 1), _rows(x))

    return torch.matmul(ct, weight), of_weight, lambda: _rows(ct).sum([0])


def _rows(x: Tensor) -> Tensor:
    """x as a matrix `[rows, features]`: all axes but the last are joined."""
    return x.reshape([-1, x.shape[-1]])


@vjp(aten.matmul.default, kind="product")
def matmul(ct: Tensor, out: Tensor, a: Tensor, b: Tensor) -> tuple[Any, Any]:
    """y = a b:  ct_a = ct b^T, ct_b = a^T ct.

    A vector counts as a matrix of one column (b) or of one row (a), and its cotangent is summed over all other axes.
    Of two vectors, ct is one number: ct_a = ct * b, ct_b = ct * a.
    """
    if a.ndim == 1 or b.ndim == 1:
        return _vector_product(ct, a, b)
    return lambda: torch.matmul(ct, b.transpose(-2, -1)), lambda: torch.matmul(a.transpose(-2, -1), ct)


def _vector_product(ct: Tensor, a: Tensor, b: Tensor) -> tuple[Any, Any]:
    """The cotangents of a and b in y = a b, where one of the two is a vector, or both."""
    if a.ndim == b.ndim == 1:
        return lambda: ct * b, lambda: ct * a
    if b.ndim == 1:
        column = ct.unsqueeze(-1)
        return lambda: column * b, lambda: (column * a).sum(list(range(a.ndim - 1)))
    row = ct.unsqueeze(-2)
    return lambda: (row * b).sum([*range(b.ndim - 2), b.ndim - 1]), lambda: a.unsqueeze(-1) * row


@vjp(aten.addmm.default, kind="product", factors=(1, 2))
def addmm(
    ct: Tensor, out: Tensor, bias: Tensor, a: Tensor, b: Tensor, beta: float = 1, alpha: float = 1
) -> tuple[Any, Any, Any]:
    """y = beta * bias + alpha * a b:  ct_bias = beta * ct, ct_a = alpha * ct b^T, ct_b = alpha * a^T ct."""
    scaled = ct if alpha == 1 else ct * alpha
    return (
        ct if beta == 1 else ct * beta,
        lambda: torch.matmul(scaled, b.transpose(-2, -1)),
        lambda: torch.matmul(a.transpose(-2, -1), scaled),
    )


@vjp(aten.baddbmm.default, kind="product", factors=(1, 2))
def baddbmm(
    ct: Tensor, out: Tensor, bias: Tensor, a: Tensor, b: Tensor, beta: float = 1, alpha: float = 1
) -> tuple[Any, Any, Any]:
    """y = beta * bias + alpha * a b, batched:  ct_bias = beta * ct, ct_a = alpha * ct b^T, ct_b = alpha * a^T ct."""
    cts: tuple[Any, Any, Any] = addmm.function(ct, out, bias, a, b, beta, alpha)
    return cts


RULES = (linear, matmul, addmm, baddbmm)
