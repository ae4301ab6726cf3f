"""VJP rules of elementwise operators.

`ct` is the cotangent of the output; y, in the code `out`, is the primal output. A rule returns one cotangent for each
tensor argument, ct_x for x. `fxpullback.vjp.rule` explains this and the values ZERO, ABSENT and NOT_DIFFERENTIABLE.

Where an argument was broadcast, the reverse walk sums its cotangent down to its shape. A plain number takes no
cotangent and has none in what a rule returns. Conditions and masks are NOT_DIFFERENTIABLE.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.graph.ir import INJECT, STOP_GRADIENT, aten
from fxpullback.rules.smoothing import normal_cdf
from fxpullback.vjp.rule import NOT_DIFFERENTIABLE, ZERO, vjp


@vjp(STOP_GRADIENT, kind="constant")
def stop_gradient(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = x, held constant:  ct_x = ZERO."""
    return (ZERO,)


@vjp(INJECT, kind="linear")
def inject(ct: Tensor, out: Tensor, primal: Tensor, soft: Tensor) -> tuple[Any, Any]:
    """y = primal:  ct_primal = ZERO, ct_soft = ct."""
    return ZERO, ct


@vjp(aten.add.Tensor, aten.add.Scalar, kind="linear")
def add(ct: Tensor, out: Tensor, a: Tensor, b: Any, alpha: float = 1) -> tuple[Any, ...]:
    """y = a + alpha * b:  ct_a = ct, ct_b = alpha * ct."""
    return (ct, ct if alpha == 1 else ct * alpha)[: 2 if not isinstance(b, int | float) else 1]


@vjp(aten.sub.Tensor, aten.sub.Scalar, kind="linear")
def sub(ct: Tensor, out: Tensor, a: Tensor, b: Any, alpha: float = 1) -> tuple[Any, ...]:
    """y = a - alpha * b:  ct_a = ct, ct_b = -alpha * ct."""
    return (ct, lambda: ct * -alpha if alpha != 1 else -ct)[: 2 if not isinstance(b, int | float) else 1]


@vjp(aten.rsub.Scalar, kind="linear")
def rsub(ct: Tensor, out: Tensor, a: Tensor, b: float, alpha: float = 1) -> tuple[Any]:
    """y = b - alpha * a, b a number:  ct_a = -alpha * ct."""
    return (ct * -alpha if alpha != 1 else -ct,)


@vjp(aten.mul.Tensor, aten.mul.Scalar, kind="product")
def mul(ct: Tensor, out: Tensor, a: Tensor, b: Any) -> tuple[Any, ...]:
    """y = a * b:  ct_a = ct * b, ct_b = ct * a."""
    return (lambda: ct * b, lambda: ct * a)[: 2 if not isinstance(b, int | float) else 1]


@vjp(aten.addcmul.default, kind="product", factors=(1, 2))
def addcmul(ct: Tensor, out: Tensor, x: Tensor, a: Tensor, b: Tensor, value: float = 1) -> tuple[Any, Any, Any]:
    """y = x + value * a * b:  ct_x = ct, ct_a = value * ct * b, ct_b = value * ct * a."""
    scaled = ct if value == 1 else ct * value
    return ct, lambda: scaled * b, lambda: scaled * a


@vjp(aten.div.Tensor, aten.div.Scalar, kind="product", divisor=1)
def div(ct: Tensor, out: Tensor, a: Any, b: Any) -> tuple[Any, ...]:
    """y = a / b:  ct_a = ct / b, ct_b = -ct * y / b."""
    if isinstance(b, int | float):
        return (lambda: ct / b,)
    return lambda: ct / b, lambda: -(ct * out / b)


@vjp(aten.neg.default, kind="linear")
def neg(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = -x:  ct_x = -ct."""
    return (-ct,)


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


@vjp(aten.sigmoid.default, kind="nonlinear")
def sigmoid(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = sigma(x):  ct_x = ct * y * (1 - y)."""
    return (ct * (out * (1 - out)),)


@vjp(aten.tanh.default, kind="nonlinear")
def tanh(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = tanh(x):  ct_x = ct * (1 - y^2)."""
    return (ct * (1 - out * out),)


@vjp(aten.relu.default, kind="nonlinear")
def relu(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = max(x, 0):  ct_x = ct * 1[x > 0]."""
    return (torch.where(x > 0, ct, 0.0),)


@vjp(aten.silu.default, kind="nonlinear")
def silu(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = x * s, s = sigma(x):  ct_x = ct * s * (1 + x * (1 - s))."""
    gate = torch.sigmoid(x)
    return (ct * (gate * (1 + x * (1 - gate))),)


@vjp(aten.gelu.default, kind="nonlinear")
def gelu(ct: Tensor, out: Tensor, x: Tensor, approximate: str = "none") -> tuple[Any]:
    """y = x * Phi(x):  ct_x = ct * (Phi(x) + x * exp(-x^2 / 2) / sqrt(2 * pi)).

    approximate="tanh": y = x * (1 + t) / 2, t = tanh(r * (x + c * x^3)), r = sqrt(2 / pi), c = 0.044715:
    ct_x = ct * (1 + t + x * (1 - t^2) * r * (1 + 3 * c * x^2)) / 2.
    """
    if approximate == "tanh":
        root = math.sqrt(2 / math.pi)
        t = torch.tanh((x + x * x * x * 0.044715) * root)
        slope = (1 - t * t) * ((x * x * (3 * 0.044715) + 1) * root)
        return (ct * ((t + 1 + x * slope) * 0.5),)
    density = torch.exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))
    return (ct * (normal_cdf(x) + x * density),)


@vjp(aten.mish.default, kind="nonlinear")
def mish(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = x * t, t = tanh(softplus(x)):  ct_x = ct * (t + x * (1 - t^2) * sigma(x))."""
    t = torch.tanh(F.softplus(x))
    return (ct * (t + x * (1 - t * t) * torch.sigmoid(x)),)


@vjp(aten.hardswish.default, kind="nonlinear")
def hardswish(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = x * min(max(x + 3, 0), 6) / 6:  ct_x = ct where x >= 3, ct * (x / 3 + 1 / 2) where -3 < x < 3, else 0."""
    middle = torch.where(x > -3, ct * (x * (1 / 3) + 0.5), 0.0)
    return (torch.where(x < 3, middle, ct),)


@vjp(aten.hardsigmoid.default, kind="nonlinear")
def hardsigmoid(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = min(max(x + 3, 0), 6) / 6:  ct_x = ct * 1[-3 < x < 3] / 6."""
    return (torch.where((x > -3) & (x < 3), ct * (1 / 6), 0.0),)


@vjp(aten.hardtanh.default, kind="nonlinear")
def hardtanh(ct: Tensor, out: Tensor, x: Tensor, low: float = -1.0, high: float = 1.0) -> tuple[Any]:
    """y = min(max(x, low), high):  ct_x = ct * 1[low < x < high]."""
    return (torch.where((x > low) & (x < high), ct, 0.0),)


@vjp(aten.clamp_min.default, kind="nonlinear")
def clamp_min(ct: Tensor, out: Tensor, x: Tensor, low: float) -> tuple[Any]:
    """y = max(x, low):  ct_x = ct * 1[x > low]."""
    return (torch.where(x > low, ct, 0.0),)


@vjp(aten.clamp_max.default, kind="nonlinear")
def clamp_max(ct: Tensor, out: Tensor, x: Tensor, high: float) -> tuple[Any]:
    """y = min(x, high):  ct_x = ct * 1[x < high]."""
    return (torch.where(x < high, ct, 0.0),)


@vjp(aten.clamp.default, kind="nonlinear")
def clamp(ct: Tensor, out: Tensor, x: Tensor, low: float | None = None, high: float | None = None) -> tuple[Any]:
    """y = min(max(x, low), high):  ct_x = ct * 1[x > low] * 1[x < high]; a bound that is None has no factor."""
    if low is not None:
        ct = torch.where(x > low, ct, 0.0)
    return (ct if high is None else torch.where(x < high, ct, 0.0),)


@vjp(aten.threshold.default, kind="nonlinear")
def threshold(ct: Tensor, out: Tensor, x: Tensor, at: float, value: float) -> tuple[Any]:
    """y = x where x > at, else value:  ct_x = ct * 1[x > at]."""
    return (torch.where(x > at, ct, 0.0),)


@vjp(aten.leaky_relu.default, kind="nonlinear")
def leaky_relu(ct: Tensor, out: Tensor, x: Tensor, slope: float = 0.01) -> tuple[Any]:
    """y = x where x > 0, else slope * x:  ct_x = ct where x > 0, else slope * ct."""
    return (torch.where(x > 0, ct, ct * slope),)


@vjp(aten.prelu.default, kind="nonlinear")
def prelu(ct: Tensor, out: Tensor, x: Tensor, slope: Tensor) -> tuple[Any, Any]:
    """y = x where x > 0, else slope * x:  ct_x = ct where x > 0, else slope * ct; ct_slope = NOT_DIFFERENTIABLE.

    There is one slope for each channel (dimension 1), or one for all. A slope that depends on the input is refused.
    """
    a = slope if slope.shape[0] == 1 else slope.reshape([-1] + [1] * (x.ndim - 2))
    return torch.where(x > 0, ct, ct * a), NOT_DIFFERENTIABLE


@vjp(aten.elu.default, kind="nonlinear")
def elu(
    ct: Tensor, out: Tensor, x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0
) -> tuple[Any]:
    """With k = input_scale: y = scale * x where x > 0, else scale * alpha * (exp(k * x) - 1).

    ct_x = ct * scale where x > 0, else ct * scale * alpha * k * exp(k * x).
    """
    below = torch.exp(x.clamp(max=0.0) * input_scale) * (alpha * scale * input_scale)
    return (ct * torch.where(x > 0, scale, below),)


@vjp(aten.selu.default, kind="nonlinear")
def selu(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """ELU with alpha = 1.6733 and scale = 1.0507:  ct_x = ct * scale where x > 0, else ct * scale * alpha * exp(x)."""
    result: tuple[Any] = elu.function(ct, out, x, 1.6732632423543772, 1.0507009873554805, 1.0)
    return result


@vjp(aten.celu.default, kind="nonlinear")
def celu(ct: Tensor, out: Tensor, x: Tensor, alpha: float = 1.0) -> tuple[Any]:
    """y = x where x > 0, else alpha * (exp(x / alpha) - 1):  ct_x = ct where x > 0, else ct * exp(x / alpha)."""
    return (ct * torch.where(x > 0, 1.0, torch.exp(x.clamp(max=0.0) * (1 / alpha))),)


@vjp(aten.softplus.default, kind="nonlinear")
def softplus(ct: Tensor, out: Tensor, x: Tensor, beta: float = 1.0, linear_above: float = 20.0) -> tuple[Any]:
    """y = log(1 + exp(z)) / beta, z = beta * x:  ct_x = ct * sigma(z); where z > linear_above, y = x and ct_x = ct."""
    return (torch.where(x * beta > linear_above, ct, ct * torch.sigmoid(x * beta)),)


@vjp(aten.log_sigmoid.default, kind="nonlinear")
def log_sigmoid(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = log(sigma(x)):  ct_x = ct * sigma(-x)."""
    return (ct * torch.sigmoid(-x),)


@vjp(aten.softshrink.default, aten.hardshrink.default, kind="nonlinear")
def shrink(ct: Tensor, out: Tensor, x: Tensor, width: float = 0.5) -> tuple[Any]:
    """y = x (hard) or x - sign(x) * width (soft) where |x| > width, else 0:  ct_x = ct * 1[|x| > width]."""
    return (torch.where(torch.abs(x) > width, ct, 0.0),)


@vjp(aten.maximum.default, kind="nonlinear")
def maximum(ct: Tensor, out: Tensor, a: Tensor, b: Tensor) -> tuple[Any, Any]:
    """y = max(a, b):  ct_a = ct * 1[a > b], ct_b = ct * 1[b > a]; where a = b, each gets ct / 2."""
    return lambda: _chosen(ct, a, b), lambda: _chosen(ct, b, a)


@vjp(aten.minimum.default, kind="nonlinear")
def minimum(ct: Tensor, out: Tensor, a: Tensor, b: Tensor) -> tuple[Any, Any]:
    """y = min(a, b):  ct_a = ct * 1[a < b], ct_b = ct * 1[b < a]; where a = b, each gets ct / 2."""
    return lambda: _chosen(ct, -a, -b), lambda: _chosen(ct, -b, -a)


def _chosen(ct: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """ct * 1[a > b]; where a = b, ct / 2, as in autograd."""
    return torch.where(a > b, ct, torch.where(a == b, ct * 0.5, 0.0))


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


@vjp(aten._to_copy.default, aten.clone.default, kind="linear")
def to_copy(ct: Tensor, out: Tensor, x: Tensor, *options: Any) -> tuple[Any]:
    """y = x, copied, perhaps to another type:  ct_x = ct in the type of x."""
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


RULES = (
    stop_gradient, inject, add, sub, rsub, mul, addcmul, div, neg, power, square, sqrt, rsqrt, reciprocal, exp, expm1,
    log, log1p, log2, sin, cos, absolute, erf, ndtr, sigmoid, tanh, relu, silu, gelu, mish, hardswish, hardsigmoid,
    hardtanh, clamp_min, clamp_max, clamp, threshold, leaky_relu, prelu, elu, selu, celu, softplus, log_sigmoid,
    shrink, maximum, minimum, where, masked_fill, to_copy, steps,
)  # fmt: skip
