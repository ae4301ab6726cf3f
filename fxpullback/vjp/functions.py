"""VJP rules of functions of one number: powers, exponentials, logarithms, sine, cosine, erf and |x|.

`ct` is the cotangent of the output; y, in the code `out`, is the primal output. A rule returns one cotangent for each
tensor argument, ct_x for x. `fxpullback.vjp.rule` explains this and the values ZERO, ABSENT and NOT_DIFFERENTIABLE.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fxpullback.graph.ir import aten
from fxpullback.vjp.rule import ZERO, vjp


@vjp(aten.pow.Tensor_Scalar, kind="nonlinear")
def power(ct: Tensor, out: Tensor, x: Tensor, exponent: float) -> tuple[Any]:
    """y = x^n, n = exponent:  ct_x = ct * n * x^(n - 1); ZERO for n = 0."""
    if exponent == 0:
        return (ZERO,)
    return (ct * (x * 2 if exponent == 2 else torch.pow(x, exponent - 1) * exponent),)


@vjp(aten.square.default, kind="nonlinear")
def square(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = x^2:  ct_x = ct * 2 * x."""
    return (ct * (x * 2),)


@vjp(aten.sqrt.default, kind="nonlinear")
def sqrt(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = sqrt(x):  ct_x = ct / (2 * y)."""
    return (ct / (out * 2),)


@vjp(aten.rsqrt.default, kind="nonlinear")
def rsqrt(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = 1 / sqrt(x):  ct_x = -ct * y^3 / 2."""
    return (ct * (out * out * out * -0.5),)


@vjp(aten.reciprocal.default, kind="nonlinear")
def reciprocal(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = 1 / x:  ct_x = -ct * y^2."""
    return (-(ct * out * out),)


@vjp(aten.exp.default, kind="nonlinear")
def exp(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = exp(x):  ct_x = ct * y."""
    return (ct * out,)


@vjp(aten.expm1.default, kind="nonlinear")
def expm1(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = exp(x) - 1:  ct_x = ct * (y + 1)."""
    return (ct * (out + 1),)


@vjp(aten.log.default, kind="nonlinear")
def log(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = log(x):  ct_x = ct / x."""
    return (ct / x,)


@vjp(aten.log1p.default, kind="nonlinear")
def log1p(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = log(1 + x):  ct_x = ct / (x + 1)."""
    return (ct / (x + 1),)


@vjp(aten.log2.default, kind="nonlinear")
def log2(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = log(x) / log(2):  ct_x = ct / (x * log(2))."""
    return (ct / (x * math.log(2)),)


@vjp(aten.sin.default, kind="nonlinear")
def sin(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = sin(x):  ct_x = ct * cos(x)."""
    return (ct * torch.cos(x),)


@vjp(aten.cos.default, kind="nonlinear")
def cos(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = cos(x):  ct_x = -ct * sin(x)."""
    return (-(ct * torch.sin(x)),)


@vjp(aten.abs.default, kind="nonlinear")
def absolute(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = |x|:  ct_x = ct * sign(x), zero at x = 0."""
    return (ct * torch.sign(x),)


@vjp(aten.erf.default, kind="nonlinear")
def erf(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = erf(x):  ct_x = ct * 2 / sqrt(pi) * exp(-x^2)."""
    return (ct * (torch.exp(-(x * x)) * (2 / math.sqrt(math.pi))),)


@vjp(aten.special_ndtr.default, kind="nonlinear")
def ndtr(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = Phi(x), the normal CDF:  ct_x = ct * exp(-x^2 / 2) / sqrt(2 * pi)."""
    return (ct * (torch.exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))),)


RULES = (
    power, square, sqrt, rsqrt, reciprocal, exp, expm1, log, log1p, log2, sin, cos, absolute, erf, ndtr,
)  # fmt: skip
