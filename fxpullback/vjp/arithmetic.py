"""VJP rules of arithmetic, of choices between values, and of what holds a value constant.

`ct` is the cotangent of the output; y, in the code `out`, is the primal output. A rule returns one cotangent for each
tensor argument, ct_x for x. `fxpullback.vjp.rule` explains this and the values ZERO, ABSENT and NOT_DIFFERENTIABLE.

Where an argument was broadcast, the reverse walk sums its cotangent down to its shape. A plain number takes no
cotangent and has none in what a rule returns. Conditions and masks are NOT_DIFFERENTIABLE.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fxpullback.graph.ir import INJECT, STOP_GRADIENT, aten
from fxpullback.vjp.rule import NOT_DIFFERENTIABLE, ZERO, vjp


@vjp(STOP_GRADIENT, kind="constant")
def stop_gradient(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = x, held constant:  ct_x = ZERO."""
    return (ZERO,)


@vjp(INJECT, kind="linear")
def inject(ct: Tensor, out: Tensor, primal: Tensor, soft: Tensor) -> tuple[Any, Any]:
    """y = primal:  ct_primal = ZERO, ct_soft = ct."""
    return ZERO, ct


@vjp(aten.add.Tensor, kind="linear")
def add(ct: Tensor, out: Tensor, a: Tensor, b: Any, alpha: float = 1) -> tuple[Any, ...]:
    """y = a + alpha * b:  ct_a = ct, ct_b = alpha * ct."""
    return (ct, ct if alpha == 1 else ct * alpha)[: 2 if not isinstance(b, int | float) else 1]


@vjp(aten.sub.Tensor, kind="linear")
def sub(ct: Tensor, out: Tensor, a: Tensor, b: Any, alpha: float = 1) -> tuple[Any, ...]:
    """y = a - alpha * b:  ct_a = ct, ct_b = -alpha * ct."""
    return (ct, lambda: ct * -alpha if alpha != 1 else -ct)[: 2 if not isinstance(b, int | float) else 1]


@vjp(aten.rsub.Scalar, kind="linear")
def rsub(ct: Tensor, out: Tensor, a: Tensor, b: float, alpha: float = 1) -> tuple[Any]:
    """y = b - alpha * a, b a number:  ct_a = -alpha * ct."""
    return (ct * -alpha if alpha != 1 else -ct,)


@vjp(aten.mul.Tensor, kind="product")
def mul(ct: Tensor, out: Tensor, a: Tensor, b: Any) -> tuple[Any, ...]:
    """y = a * b:  ct_a = ct * b, ct_b = ct * a."""
    return (lambda: ct * b, lambda: ct * a)[: 2 if not isinstance(b, int | float) else 1]


@vjp(aten.addcmul.default, kind="product", factors=(1, 2))
def addcmul(ct: Tensor, out: Tensor, x: Tensor, a: Tensor, b: Tensor, value: float = 1) -> tuple[Any, Any, Any]:
    """y = x + value * a * b:  ct_x = ct, ct_a = value * ct * b, ct_b = value * ct * a."""
    scaled = ct if value == 1 else ct * value
    return ct, lambda: scaled * b, lambda: scaled * a


@vjp(aten.div.Tensor, kind="product", divisor=1)
def div(ct: Tensor, out: Tensor, a: Any, b: Any) -> tuple[Any, ...]:
    """y = a / b:  ct_a = ct / b, ct_b = -ct * y / b."""
    if isinstance(b, int | float):
        return (lambda: ct / b,)
    return lambda: ct / b, lambda: -(ct * out / b)


@vjp(aten.neg.default, kind="linear")
def neg(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = -x:  ct_x = -ct."""
    return (-ct,)


@vjp(aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, kind="linear")
def where(ct: Tensor, out: Tensor, condition: Tensor, a: Any, b: Any) -> tuple[Any, ...]:
    """y = a where condition, else b:  ct_a = ct where condition, else 0; ct_b = 0 where condition, else ct.

    ct_condition = NOT_DIFFERENTIABLE.
    """
    cts: list[Any] = [NOT_DIFFERENTIABLE]
    if not isinstance(a, int | float):
        cts.append(lambda: torch.where(condition, ct, 0.0))
    if not isinstance(b, int | float):
        cts.append(lambda: torch.where(condition, 0.0, ct))
    return tuple(cts)


@vjp(aten.masked_fill.Scalar, kind="linear")
def masked_fill(ct: Tensor, out: Tensor, x: Tensor, mask: Tensor, value: float) -> tuple[Any, Any]:
    """y = value where mask, else x:  ct_x = 0 where mask, else ct; ct_mask = NOT_DIFFERENTIABLE."""
    return torch.where(mask, 0.0, ct), NOT_DIFFERENTIABLE


@vjp(aten._to_copy.default, kind="linear")
def to_copy(ct: Tensor, out: Tensor, x: Tensor, *options: Any) -> tuple[Any]:
    """y = x in another type:  ct_x = ct in the type of x."""
    return (ct if ct.dtype == x.dtype else ct.to(x.dtype),)


@vjp(
    aten.sign.default, aten.floor.default, aten.ceil.default, aten.round.default, aten.trunc.default,
    aten.zeros_like.default, aten.ones_like.default, aten.full_like.default,
    aten.argmax.default, aten.argmin.default,
    aten.eq.Scalar, aten.ne.Scalar, aten.lt.Scalar, aten.le.Scalar, aten.gt.Scalar, aten.ge.Scalar,
    kind="constant",
)  # fmt: skip
def steps(ct: Tensor, out: Tensor, x: Tensor, *options: Any) -> tuple[Any]:
    """y does not change with x, except in jumps:  ct_x = ZERO."""
    return (ZERO,)


@vjp(aten.div.Tensor_mode, aten.div.Scalar_mode, kind="constant")
def whole_quotient(ct: Tensor, out: Tensor, a: Tensor, b: Any, *mode: Any) -> tuple[Any, ...]:
    """y = a / b rounded to a whole number, which changes in jumps alone:  ct_a = ct_b = ZERO."""
    return (ZERO,) if isinstance(b, int | float) else (ZERO, ZERO)


RULES = (
    stop_gradient, inject, add, sub, rsub, mul, addcmul, div, neg, where, masked_fill, to_copy, steps, whole_quotient,
)  # fmt: skip
