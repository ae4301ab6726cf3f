"""Functions of one element at a time: what ONNX has by name, and what is written out.

A formula is chosen so that it keeps its digits where the plain one loses them.
"""

from __future__ import annotations

import math

import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.values import Value

aten = torch.ops.aten


def unary(op_type: str) -> Translator:
    """Neg, Exp, Sqrt or another function that ONNX has by name."""

    def translate(b: Builder, x: Value, *_: object) -> Value:
        return b.op(op_type, b.cast(x, b.dtype))

    return translate


def square(b: Builder, x: Value) -> Value:
    """Mul: `x * x`."""
    return b.op("Mul", x, x)


def rsqrt(b: Builder, x: Value) -> Value:
    """Reciprocal of Sqrt."""
    return b.op("Reciprocal", b.op("Sqrt", b.cast(x, b.dtype)))


def expm1(b: Builder, x: Value) -> Value:
    """Tanh and Exp: `tanh(x / 2) * (exp(x) + 1)`, which keeps its digits near zero."""
    half = b.op("Tanh", b.op("Mul", x, b.const(0.5, b.dtype)))
    return b.op("Mul", half, b.op("Add", b.op("Exp", x), b.const(1, b.dtype)))


def log1p(b: Builder, x: Value) -> Value:
    """Log of `u = 1 + x`, near zero times `x / (u - 1)`, as the logarithm alone loses its digits there."""
    one = b.const(1, b.dtype)
    u = b.op("Add", x, one)
    log = b.op("Log", u)
    shift = b.op("Sub", u, one)
    tiny = b.op("Equal", shift, b.const(0, b.dtype))
    corrected = b.op("Where", tiny, x, b.op("Mul", log, b.op("Div", x, b.op("Where", tiny, one, shift))))
    near = b.op("Less", b.op("Abs", x), b.const(0.5, b.dtype))
    return b.op("Where", near, corrected, log)


def log_base(base: float) -> Translator:
    """Log and Mul: a logarithm to another base."""

    def translate(b: Builder, x: Value) -> Value:
        return b.op("Mul", b.op("Log", b.cast(x, b.dtype)), b.const(1 / math.log(base), b.dtype))

    return translate


def exp2(b: Builder, x: Value) -> Value:
    """Pow of 2."""
    return b.op("Pow", b.const(2.0, b.dtype), b.cast(x, b.dtype))


def erfc(b: Builder, x: Value) -> Value:
    """Sub of Erf from 1: right to an absolute, not a relative, precision."""
    return b.op("Sub", b.const(1, b.dtype), b.op("Erf", x))


def hypot(b: Builder, x: Value, y: Value) -> Value:
    """Sqrt of `1 + (small / large)^2`, Mul the larger: squares neither overflow nor vanish."""
    x, y = b.op("Abs", x), b.op("Abs", y)
    large, small = b.op("Max", x, y), b.op("Min", x, y)
    zero = b.op("Equal", large, b.const(0, b.dtype))
    ratio = b.op("Div", small, b.op("Where", zero, b.const(1, b.dtype), large))
    return b.op("Mul", large, b.op("Sqrt", b.op("Add", b.const(1, b.dtype), b.op("Mul", ratio, ratio))))


def atan2(b: Builder, y: Value, x: Value) -> Value:
    """Atan of `y / x`, and Where for the quadrant."""
    zero = b.const(0, b.dtype)
    left = b.op("Less", x, zero)
    below = b.op("Less", y, zero)
    pi = b.op("Where", below, b.const(-math.pi, b.dtype), b.const(math.pi, b.dtype))
    angle = b.op("Add", b.op("Atan", b.op("Div", y, x)), b.op("Where", left, pi, zero))
    origin = b.op("And", b.op("Equal", x, zero), b.op("Equal", y, zero))
    return b.op("Where", origin, zero, angle)


def xlogy(b: Builder, x: Value, y: Value) -> Value:
    """Mul and Log: `x * log(y)`; Where gives 0 where `x` is 0."""
    x, y = b.cast(x, b.dtype), b.cast(y, b.dtype)
    zero = b.const(0, b.dtype)
    product = b.op("Mul", x, b.op("Log", y))
    return b.op("Where", b.op("Equal", x, zero), zero, product)


def sinc(b: Builder, x: Value) -> Value:
    """Sin and Div: `sin(pi x) / (pi x)`; Where gives 1 at 0."""
    angle = b.op("Mul", x, b.const(math.pi, b.dtype))
    zero = b.op("Equal", x, b.const(0, b.dtype))
    one = b.const(1, b.dtype)
    safe = b.op("Where", zero, one, angle)
    return b.op("Where", zero, one, b.op("Div", b.op("Sin", safe), safe))


_UNARY = {
    aten.neg.default: "Neg",
    aten.abs.default: "Abs",
    aten.sqrt.default: "Sqrt",
    aten.reciprocal.default: "Reciprocal",
    aten.exp.default: "Exp",
    aten.log.default: "Log",
    aten.erf.default: "Erf",
    aten.sigmoid.default: "Sigmoid",
    aten.tanh.default: "Tanh",
    aten.sin.default: "Sin",
    aten.cos.default: "Cos",
    aten.tan.default: "Tan",
    aten.asin.default: "Asin",
    aten.acos.default: "Acos",
    aten.atan.default: "Atan",
    aten.sinh.default: "Sinh",
    aten.cosh.default: "Cosh",
    aten.asinh.default: "Asinh",
    aten.acosh.default: "Acosh",
    aten.atanh.default: "Atanh",
    aten.sign.default: "Sign",
}

TABLE: dict[OpOverload, Translator] = {
    **{operator: unary(name) for operator, name in _UNARY.items()},
    aten.square.default: square,
    aten.rsqrt.default: rsqrt,
    aten.expm1.default: expm1,
    aten.exp2.default: exp2,
    aten.log1p.default: log1p,
    aten.log2.default: log_base(2),
    aten.log10.default: log_base(10),
    aten.erfc.default: erfc,
    aten.hypot.default: hypot,
    aten.atan2.default: atan2,
    aten.xlogy.Tensor: xlogy,
    aten.sinc.default: sinc,
}
