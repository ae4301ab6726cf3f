"""VJP rules of elementwise gates: their exact derivatives.

`ct` is the cotangent of the output; y, in the code `out`, is the primal output. A rule returns one cotangent for each
tensor argument, ct_x for x. `fxpullback.vjp.rule` explains this and the values ZERO, ABSENT and NOT_DIFFERENTIABLE.

Where an argument was broadcast, the reverse walk sums its cotangent down to its shape.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.graph.fake_quantized import FAKE_QUANTIZE, FAKE_QUANTIZE_MASK
from fxpullback.graph.ir import aten
from fxpullback.rules.smoothing import normal_cdf
from fxpullback.vjp.rule import NOT_DIFFERENTIABLE, vjp


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


@vjp(FAKE_QUANTIZE, kind="nonlinear")
def fake_quantize(
    ct: Tensor, out: Tensor, x: Tensor, scale: Tensor, zero: Tensor, axis: int, low: int, high: int, divided: bool
) -> tuple[Any, Any, Any]:
    """y = s * (clip(q, low, high) - z), q = round(x / s) + z:  ct_x = ct * 1[low <= q <= high].

    s and z are scale and zero: ct_scale = ct_zero = NOT_DIFFERENTIABLE.
    """
    inside = FAKE_QUANTIZE_MASK(x, scale, zero, axis, low, high, divided)
    return torch.where(inside, ct, 0.0), NOT_DIFFERENTIABLE, NOT_DIFFERENTIABLE


RULES = (
    sigmoid, tanh, relu, silu, gelu, mish, hardswish, hardsigmoid, hardtanh, clamp, threshold,
    leaky_relu, prelu, elu, selu, celu, softplus, log_sigmoid, shrink, maximum, minimum, fake_quantize,
)  # fmt: skip
