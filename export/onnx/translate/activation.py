"""Activations, and softmax.

Where ONNX has the operator by name it is one node; the others are written out in the formula that torch documents.
"""

from __future__ import annotations

import math

import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.values import Scalar, Value, axis_of, rank, sizes

aten = torch.ops.aten


def relu(b: Builder, x: Value) -> Value:
    """Relu."""
    return b.op("Relu", x)


def hardtanh(b: Builder, x: Value, low: Scalar, high: Scalar) -> Value:
    """Clip; between 0 and 1 HardSigmoid, which ONNX Runtime runs in the memory layout of its convolutions."""
    if (low, high) == (0, 1):
        source, factor = _unscaled(b, x)
        return b.op("HardSigmoid", source, alpha=factor, beta=0.0)
    return b.op("Clip", x, b.const(low, b.dtype), b.const(high, b.dtype))


def silu(b: Builder, x: Value) -> Value:
    """Mul and Sigmoid: `x * sigmoid(x)`."""
    return b.op("Mul", x, b.op("Sigmoid", x))


def gelu(b: Builder, x: Value, approximate: str) -> Value:
    """Gelu, in the form with erf or in the one with tanh."""
    return b.op("Gelu", x, approximate=approximate)


def hardsigmoid(b: Builder, x: Value) -> Value:
    """HardSigmoid with slope 1/6 and height 1/2: `clip(x / 6 + 1 / 2, 0, 1)`."""
    source, factor = _unscaled(b, x)
    return b.op("HardSigmoid", source, alpha=factor / 6, beta=0.5)


def hardswish(b: Builder, x: Value) -> Value:
    """HardSwish: `x * hardsigmoid(x)`."""
    return b.op("HardSwish", x)


def leaky_relu(b: Builder, x: Value, slope: float) -> Value:
    """LeakyRelu."""
    return b.op("LeakyRelu", x, alpha=float(slope))


def elu(b: Builder, x: Value, alpha: float, scale: float = 1, input_scale: float = 1) -> Value:
    """Elu, with Mul and Where for the scales that it has in torch alone."""
    if input_scale == 1:
        result = b.op("Elu", x, alpha=float(alpha))
    else:
        below = b.op("Elu", b.op("Mul", x, b.const(input_scale, b.dtype)), alpha=float(alpha))
        result = b.op("Where", b.op("Greater", x, b.const(0, b.dtype)), x, below)
    return result if scale == 1 else b.op("Mul", result, b.const(scale, b.dtype))


def selu(b: Builder, x: Value) -> Value:
    """Selu."""
    return b.op("Selu", x)


def celu(b: Builder, x: Value, alpha: float) -> Value:
    """Elu of the scaled input, and Where: ONNX's Celu takes float32 alone."""
    return elu(b, x, alpha, 1, 1 / alpha)


def softplus(b: Builder, x: Value, beta: Scalar, threshold: Scalar) -> Value:
    """Softplus of the scaled input: `log(1 + exp(beta x)) / beta`; Where takes `x` itself beyond the threshold."""
    if beta == 1:
        smooth = b.op("Softplus", x)
    else:
        factor = b.const(beta, b.dtype)
        smooth = b.op("Div", b.op("Softplus", b.op("Mul", x, factor)), factor)
    if threshold >= 15 or not beta:
        return smooth
    return b.op("Where", b.op("Greater", x, b.const(threshold / beta, b.dtype)), x, smooth)


def mish(b: Builder, x: Value) -> Value:
    """Mul, Tanh and Softplus: `x * tanh(softplus(x))`."""
    return b.op("Mul", x, b.op("Tanh", b.op("Softplus", x)))


def log_sigmoid(b: Builder, x: Value) -> Value:
    """Softplus between two Neg: `-softplus(-x)`."""
    return b.op("Neg", b.op("Softplus", b.op("Neg", x)))


def log_sigmoid_forward(b: Builder, x: Value) -> tuple[Value, None]:
    """Softplus between two Neg; the second result is a buffer of eager torch and has no value here."""
    return log_sigmoid(b, x), None


def prelu(b: Builder, x: Value, weight: Value) -> Value:
    """PRelu, with one slope in all or one for each channel (axis 1)."""
    channels = sizes(weight)
    if rank(weight) == 1 and channels[0] != 1 and rank(x) > 2:
        weight = b.reshape(weight, [channels[0], *([1] * (rank(x) - 2))])
    return b.op("PRelu", x, weight)


def threshold(b: Builder, x: Value, threshold: Scalar, value: Scalar) -> Value:
    """Where: `x` above the threshold, `value` at and below it."""
    return b.op("Where", b.op("Greater", x, b.const(threshold, b.dtype)), x, b.const(value, b.dtype))


def softmax(b: Builder, x: Value, axis: int, *_: object) -> Value:
    """Softmax along an axis."""
    return b.op("Softmax", b.cast(x, b.dtype), axis=axis_of(axis, rank(x)))


def log_softmax(b: Builder, x: Value, axis: int, *_: object) -> Value:
    """LogSoftmax along an axis."""
    return b.op("LogSoftmax", b.cast(x, b.dtype), axis=axis_of(axis, rank(x)))


def logit(b: Builder, x: Value, eps: float | None) -> Value:
    """Log of a Div: `log(x / (1 - x))`; with `eps`, Clip keeps `x` between `eps` and `1 - eps`."""
    if eps is not None:
        x = b.op("Clip", x, b.const(eps, b.dtype), b.const(1 - eps, b.dtype))
    return b.op("Log", b.op("Div", x, b.op("Sub", b.const(1, b.dtype), x)))


def normal_cdf(b: Builder, x: Value) -> Value:
    """Erf, for the normal distribution function: `(1 + erf(x / sqrt 2)) / 2`."""
    source, factor = _unscaled(b, x)
    erf = b.op("Erf", b.op("Mul", source, b.const(factor * math.sqrt(0.5), b.dtype)))
    return b.op("Mul", b.op("Add", erf, b.const(1, b.dtype)), b.const(0.5, b.dtype))


def _unscaled(b: Builder, x: Value) -> tuple[Value, float]:
    """What `x` is a constant multiple of, and the constant, so that two factors become one."""
    maker = x.producer()
    if maker is not None and maker.op_type == "Mul":
        source, constant = maker.inputs
        factor = None if constant is None else b.array(constant)
        if source is not None and factor is not None and factor.ndim == 0:
            return source, float(factor)
    return x, 1.0


TABLE: dict[OpOverload, Translator] = {
    aten.relu.default: relu,
    aten.hardtanh.default: hardtanh,
    aten.silu.default: silu,
    aten.gelu.default: gelu,
    aten.hardsigmoid.default: hardsigmoid,
    aten.hardswish.default: hardswish,
    aten.leaky_relu.default: leaky_relu,
    aten.elu.default: elu,
    aten.selu.default: selu,
    aten.celu.default: celu,
    aten.softplus.default: softplus,
    aten.mish.default: mish,
    aten.log_sigmoid.default: log_sigmoid,
    aten.log_sigmoid_forward.default: log_sigmoid_forward,
    aten.prelu.default: prelu,
    aten._prelu_kernel.default: prelu,
    aten.threshold.default: threshold,
    aten.softmax.int: softmax,
    aten.log_softmax.int: log_softmax,
    aten.logit.default: logit,
    aten.special_ndtr.default: normal_cdf,
}
