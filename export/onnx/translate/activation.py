"""Activations, softmax among them."""

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


def clipped(b: Builder, x: Value, low: Scalar = 0, high: Scalar = 6) -> Value:
    """Relu6 and hardtanh; between 0 and 1 a hard sigmoid, which is done in the layout of convolutions."""
    if (low, high) == (0, 1):
        source, factor = _unscaled(b, x)
        return b.op("HardSigmoid", source, alpha=factor, beta=0.0)
    return b.op("Clip", x, b.const(low, b.dtype), b.const(high, b.dtype))


def silu(b: Builder, x: Value) -> Value:
    """`x * sigmoid(x)`."""
    return b.op("Mul", x, b.op("Sigmoid", x))


def gelu(b: Builder, x: Value, approximate: str) -> Value:
    """Gelu, by erf or by tanh."""
    return b.op("Gelu", x, approximate=approximate)


def hardsigmoid(b: Builder, x: Value) -> Value:
    """`clip(x / 6 + 1 / 2, 0, 1)`."""
    source, factor = _unscaled(b, x)
    return b.op("HardSigmoid", source, alpha=factor / 6, beta=0.5)


def hardswish(b: Builder, x: Value) -> Value:
    """`x * hardsigmoid(x)`."""
    return b.op("HardSwish", x)


def leaky_relu(b: Builder, x: Value, slope: float) -> Value:
    """Leaky relu."""
    return b.op("LeakyRelu", x, alpha=float(slope))


def elu(b: Builder, x: Value, alpha: float, scale: float = 1, input_scale: float = 1) -> Value:
    """Elu, with the two scales that selu and celu use."""
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
    """Celu."""
    return elu(b, x, alpha, 1, 1 / alpha)


def softplus(b: Builder, x: Value, beta: Scalar, threshold: Scalar) -> Value:
    """`log(1 + exp(beta x)) / beta`, and `x` itself beyond the threshold."""
    if beta == 1:
        smooth = b.op("Softplus", x)
    else:
        factor = b.const(beta, b.dtype)
        smooth = b.op("Div", b.op("Softplus", b.op("Mul", x, factor)), factor)
    if threshold >= 15 or not beta:
        return smooth
    return b.op("Where", b.op("Greater", x, b.const(threshold / beta, b.dtype)), x, smooth)


def mish(b: Builder, x: Value) -> Value:
    """`x * tanh(softplus(x))`."""
    return b.op("Mul", x, b.op("Tanh", b.op("Softplus", x)))


def log_sigmoid(b: Builder, x: Value) -> Value:
    """`-softplus(-x)`."""
    return b.op("Neg", b.op("Softplus", b.op("Neg", x)))


def log_sigmoid_forward(b: Builder, x: Value) -> tuple[Value, None]:
    """Log sigmoid; the buffer beside it is eager's own."""
    return log_sigmoid(b, x), None


def prelu(b: Builder, x: Value, weight: Value) -> Value:
    """Prelu, one slope or one a channel (axis 1)."""
    channels = sizes(weight)
    if rank(weight) == 1 and channels[0] != 1 and rank(x) > 2:
        weight = b.reshape(weight, [channels[0], *([1] * (rank(x) - 2))])
    return b.op("PRelu", x, weight)


def threshold(b: Builder, x: Value, threshold: Scalar, value: Scalar) -> Value:
    """`x` above the threshold, `value` at and below it."""
    return b.op("Where", b.op("Greater", x, b.const(threshold, b.dtype)), x, b.const(value, b.dtype))


def softshrink(b: Builder, x: Value, width: Scalar) -> Value:
    """Towards zero by `width`."""
    return b.op("Sub", x, b.op("Clip", x, b.const(-width, b.dtype), b.const(width, b.dtype)))


def hardshrink(b: Builder, x: Value, width: Scalar) -> Value:
    """Zero within `width` of zero."""
    inside = b.op("LessOrEqual", b.op("Abs", x), b.const(width, b.dtype))
    return b.op("Where", inside, b.const(0, b.dtype), x)


def tanhshrink(b: Builder, x: Value) -> Value:
    """`x - tanh(x)`."""
    return b.op("Sub", x, b.op("Tanh", x))


def softsign(b: Builder, x: Value) -> Value:
    """`x / (1 + |x|)`."""
    return b.op("Softsign", x)


def glu(b: Builder, x: Value, axis: int) -> Value:
    """One half of the channels, gated by the sigmoid of the other."""
    half = b.fixed(b.out_sizes[axis], "glu")
    value, gate = b.ops("Split", x, b.const([half, half]), dtypes=(None, None), axis=axis)
    return b.op("Mul", value, b.op("Sigmoid", gate))


def rrelu(b: Builder, x: Value, lower: float, upper: float, training: bool, *_: object) -> Value:
    """Outside training, leaky relu with the middle slope."""
    if training:
        raise b.error("rrelu in training mode", "Put the model in eval mode before compiling it.")
    return leaky_relu(b, x, (lower + upper) / 2)


def softmax(b: Builder, x: Value, axis: int, *_: object) -> Value:
    """Softmax along an axis."""
    return b.op("Softmax", b.cast(x, b.dtype), axis=axis_of(axis, rank(x)))


def log_softmax(b: Builder, x: Value, axis: int, *_: object) -> Value:
    """Its logarithm."""
    return b.op("LogSoftmax", b.cast(x, b.dtype), axis=axis_of(axis, rank(x)))


def logit(b: Builder, x: Value, eps: float | None) -> Value:
    """`log(x / (1 - x))`."""
    if eps is not None:
        x = b.op("Clip", x, b.const(eps, b.dtype), b.const(1 - eps, b.dtype))
    return b.op("Log", b.op("Div", x, b.op("Sub", b.const(1, b.dtype), x)))


def normal_cdf(b: Builder, x: Value) -> Value:
    """The normal distribution function, `(1 + erf(x / sqrt 2)) / 2`."""
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
    aten.relu6.default: clipped,
    aten.hardtanh.default: clipped,
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
    aten.softshrink.default: softshrink,
    aten.hardshrink.default: hardshrink,
    aten.glu.default: glu,
    aten.rrelu.default: rrelu,
    aten.softmax.int: softmax,
    aten._softmax.default: softmax,
    aten.log_softmax.int: log_softmax,
    aten._log_softmax.default: log_softmax,
    aten.logit.default: logit,
    aten.special_ndtr.default: normal_cdf,
}
