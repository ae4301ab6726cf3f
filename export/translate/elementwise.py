"""Arithmetic and functions of one element at a time."""

from __future__ import annotations

import math

import onnx_ir as ir
import torch
from torch._ops import OpOverload

from fxpullback.export.translate.builder import BOOL, FLOATS, Builder, Scalar, Value, rank
from fxpullback.export.translate.engine import Translator

aten = torch.ops.aten
Operand = Value | Scalar


def unary(op_type: str) -> Translator:
    """A function ONNX has under its own name."""

    def translate(b: Builder, x: Value, *_: object) -> Value:
        return b.op(op_type, b.cast(x, b.dtype))

    return translate


def rounding(op_type: str) -> Translator:
    """A rounding, which leaves integers alone."""

    def translate(b: Builder, x: Value, *_: object) -> Value:
        return b.op(op_type, x) if x.dtype in FLOATS else x

    return translate


def binary(op_type: str, of_bools: str | None = None) -> Translator:
    """Two broadcast operands, promoted to the type of the result."""

    def translate(b: Builder, x: Operand, y: Operand, *_: object) -> Value:
        name = of_bools if of_bools and b.dtype == BOOL else op_type
        return b.op(name, b.operand(x, b.dtype), b.operand(y, b.dtype))

    return translate


def identity(b: Builder, x: Value, *_: object) -> Value:
    """The same value, in the type the graph says."""
    return b.cast(x, b.dtype)


def dropout(b: Builder, x: Value, p: float, train: bool) -> Value:
    """Nothing, outside training."""
    if train and p:
        raise b.error("dropout in training mode", "Put the model in eval mode before compiling it.")
    return x


def scaled(b: Builder, x: Operand, alpha: Scalar) -> Value:
    """`alpha * x`, in the type of the result."""
    x = b.operand(x, b.dtype)
    return x if alpha == 1 else b.op("Mul", x, b.const(alpha, b.dtype))


def add(b: Builder, x: Operand, y: Operand, alpha: Scalar = 1) -> Value:
    """`x + alpha * y`."""
    if b.dtype == BOOL:
        return b.op("Or", b.operand(x, BOOL), b.operand(y, BOOL))
    return b.op("Add", b.operand(x, b.dtype), scaled(b, y, alpha))


def sub(b: Builder, x: Operand, y: Operand, alpha: Scalar = 1) -> Value:
    """`x - alpha * y`."""
    return b.op("Sub", b.operand(x, b.dtype), scaled(b, y, alpha))


def rsub(b: Builder, x: Operand, y: Operand, alpha: Scalar = 1) -> Value:
    """`y - alpha * x`."""
    return b.op("Sub", b.operand(y, b.dtype), scaled(b, x, alpha))


def truncate(b: Builder, x: Value) -> Value:
    """Towards zero."""
    return b.op("Mul", b.op("Sign", x), b.op("Floor", b.op("Abs", x)))


def trunc(b: Builder, x: Value) -> Value:
    """Towards zero; integers stay."""
    return truncate(b, x) if x.dtype in FLOATS else x


def frac(b: Builder, x: Value) -> Value:
    """What truncation drops."""
    return b.op("Sub", x, truncate(b, x))


def floor_divide(b: Builder, x: Operand, y: Operand) -> Value:
    """Division rounded down; ONNX divides integers towards zero."""
    x, y = b.operand(x, b.dtype), b.operand(y, b.dtype)
    if b.dtype in FLOATS:
        return b.op("Floor", b.op("Div", x, y))
    return b.op("Div", b.op("Sub", x, b.op("Mod", x, y)), y)


def div_mode(b: Builder, x: Operand, y: Operand, mode: str | None) -> Value:
    """Division, exact or rounded down or towards zero."""
    if mode == "floor":
        return floor_divide(b, x, y)
    quotient = b.op("Div", b.operand(x, b.dtype), b.operand(y, b.dtype))
    return truncate(b, quotient) if mode == "trunc" and b.dtype in FLOATS else quotient


def remainder(b: Builder, x: Operand, y: Operand) -> Value:
    """The remainder with the sign of the divisor."""
    x, y = b.operand(x, b.dtype), b.operand(y, b.dtype)
    if b.dtype not in FLOATS:
        return b.op("Mod", x, y)
    return b.op("Sub", x, b.op("Mul", b.op("Floor", b.op("Div", x, y)), y))


def fmod(b: Builder, x: Operand, y: Operand) -> Value:
    """The remainder with the sign of the dividend."""
    return b.op("Mod", b.operand(x, b.dtype), b.operand(y, b.dtype), fmod=1)


def power(b: Builder, x: Operand, exponent: Operand) -> Value:
    """A power; the common constant ones without Pow."""
    if not isinstance(exponent, ir.Value):
        base = b.operand(x, b.dtype)
        if exponent == 1:
            return base
        if exponent == 2:
            return b.op("Mul", base, base)
        if exponent == 0.5:
            return b.op("Sqrt", base)
        if exponent == -1 and b.dtype in FLOATS:
            return b.op("Reciprocal", base)
    return b.op("Pow", b.operand(x, b.dtype), b.operand(exponent, b.dtype))


def square(b: Builder, x: Value) -> Value:
    """`x * x`."""
    return b.op("Mul", x, x)


def rsqrt(b: Builder, x: Value) -> Value:
    """`1 / sqrt(x)`."""
    return b.op("Reciprocal", b.op("Sqrt", b.cast(x, b.dtype)))


def expm1(b: Builder, x: Value) -> Value:
    """`tanh(x / 2) * (exp(x) + 1)`, which keeps its digits near zero."""
    half = b.op("Tanh", b.op("Mul", x, b.const(0.5, b.dtype)))
    return b.op("Mul", half, b.op("Add", b.op("Exp", x), b.const(1, b.dtype)))


def log1p(b: Builder, x: Value) -> Value:
    """`log(u) * x / (u - 1)` with `u = 1 + x` near zero, where `log(u)` alone loses its digits."""
    one = b.const(1, b.dtype)
    u = b.op("Add", x, one)
    log = b.op("Log", u)
    shift = b.op("Sub", u, one)
    tiny = b.op("Equal", shift, b.const(0, b.dtype))
    corrected = b.op("Where", tiny, x, b.op("Mul", log, b.op("Div", x, b.op("Where", tiny, one, shift))))
    near = b.op("Less", b.op("Abs", x), b.const(0.5, b.dtype))
    return b.op("Where", near, corrected, log)


def log_base(base: float) -> Translator:
    """A logarithm to another base."""

    def translate(b: Builder, x: Value) -> Value:
        return b.op("Mul", b.op("Log", b.cast(x, b.dtype)), b.const(1 / math.log(base), b.dtype))

    return translate


def exp2(b: Builder, x: Value) -> Value:
    """A power of two."""
    return b.op("Pow", b.const(2.0, b.dtype), b.cast(x, b.dtype))


def erfc(b: Builder, x: Value) -> Value:
    """`1 - erf(x)`: right to an absolute, not a relative, precision."""
    return b.op("Sub", b.const(1, b.dtype), b.op("Erf", x))


def clamp(b: Builder, x: Value, low: Operand | None, high: Operand | None = None) -> Value:
    """Between bounds, numbers or tensors."""
    x = b.cast(x, b.dtype)
    scalars = not isinstance(low, ir.Value) and not isinstance(high, ir.Value)
    if scalars:
        bounds = [None if bound is None else b.const(bound, b.dtype) for bound in (low, high)]
        return b.op("Clip", x, *bounds)
    if low is not None:
        x = b.op("Max", x, b.operand(low, b.dtype))
    return x if high is None else b.op("Min", x, b.operand(high, b.dtype))


def clamp_max(b: Builder, x: Value, high: Operand) -> Value:
    """Bounded above."""
    return clamp(b, x, None, high)


def lerp(b: Builder, start: Value, end: Value, weight: Operand) -> Value:
    """`start + weight * (end - start)`."""
    return b.op("Add", start, b.op("Mul", b.op("Sub", end, start), b.operand(weight, b.dtype)))


def addcmul(b: Builder, x: Value, y: Value, z: Value, value: Scalar) -> Value:
    """`x + value * y * z`."""
    return b.op("Add", b.cast(x, b.dtype), scaled(b, b.op("Mul", b.cast(y, b.dtype), b.cast(z, b.dtype)), value))


def addcdiv(b: Builder, x: Value, y: Value, z: Value, value: Scalar) -> Value:
    """`x + value * y / z`."""
    return b.op("Add", b.cast(x, b.dtype), scaled(b, b.op("Div", b.cast(y, b.dtype), b.cast(z, b.dtype)), value))


def hypot(b: Builder, x: Value, y: Value) -> Value:
    """`sqrt(x^2 + y^2)`, scaled by the larger so that squares neither overflow nor vanish."""
    x, y = b.op("Abs", x), b.op("Abs", y)
    large, small = b.op("Max", x, y), b.op("Min", x, y)
    zero = b.op("Equal", large, b.const(0, b.dtype))
    ratio = b.op("Div", small, b.op("Where", zero, b.const(1, b.dtype), large))
    return b.op("Mul", large, b.op("Sqrt", b.op("Add", b.const(1, b.dtype), b.op("Mul", ratio, ratio))))


def atan2(b: Builder, y: Value, x: Value) -> Value:
    """`atan(y / x)` in the right quadrant."""
    zero = b.const(0, b.dtype)
    left = b.op("Less", x, zero)
    below = b.op("Less", y, zero)
    pi = b.op("Where", below, b.const(-math.pi, b.dtype), b.const(math.pi, b.dtype))
    angle = b.op("Add", b.op("Atan", b.op("Div", y, x)), b.op("Where", left, pi, zero))
    origin = b.op("And", b.op("Equal", x, zero), b.op("Equal", y, zero))
    return b.op("Where", origin, zero, angle)


def xlogy(b: Builder, x: Value, y: Value) -> Value:
    """`x * log(y)`, and 0 where `x` is 0."""
    x, y = b.cast(x, b.dtype), b.cast(y, b.dtype)
    zero = b.const(0, b.dtype)
    product = b.op("Mul", x, b.op("Log", y))
    return b.op("Where", b.op("Equal", x, zero), zero, product)


def sinc(b: Builder, x: Value) -> Value:
    """`sin(pi x) / (pi x)`, and 1 at 0."""
    angle = b.op("Mul", x, b.const(math.pi, b.dtype))
    zero = b.op("Equal", x, b.const(0, b.dtype))
    one = b.const(1, b.dtype)
    safe = b.op("Where", zero, one, angle)
    return b.op("Where", zero, one, b.op("Div", b.op("Sin", safe), safe))


def outer(b: Builder, x: Value, y: Value) -> Value:
    """All products of two vectors."""
    assert rank(x) == rank(y) == 1
    return b.op("Mul", b.unsqueeze(b.cast(x, b.dtype), 1), b.unsqueeze(b.cast(y, b.dtype), 0))


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
    aten.sgn.default: "Sign",
}

_BINARY = {
    aten.mul.Tensor: ("Mul", "And"),
    aten.mul.Scalar: ("Mul", "And"),
    aten.div.Tensor: ("Div", None),
    aten.div.Scalar: ("Div", None),
    aten.true_divide.Tensor: ("Div", None),
    aten.maximum.default: ("Max", "Or"),
    aten.minimum.default: ("Min", "And"),
    aten.max.other: ("Max", "Or"),
    aten.min.other: ("Min", "And"),
}

_IDENTITY = (
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.detach_copy.default,
    aten.alias_copy.default,
    aten.lift_fresh_copy.default,
    aten._to_copy.default,
    aten.to.dtype,
    aten.to.dtype_layout,
    aten.to.device,
    aten.to.other,
    aten.type_as.default,
    aten.positive.default,
)

TABLE: dict[OpOverload, Translator] = {
    **{operator: unary(name) for operator, name in _UNARY.items()},
    **{operator: binary(*names) for operator, names in _BINARY.items()},
    **dict.fromkeys(_IDENTITY, identity),
    aten.dropout.default: dropout,
    aten.feature_dropout.default: dropout,
    aten.alpha_dropout.default: dropout,
    aten.floor.default: rounding("Floor"),
    aten.ceil.default: rounding("Ceil"),
    aten.round.default: rounding("Round"),
    aten.trunc.default: trunc,
    aten.frac.default: frac,
    aten.add.Tensor: add,
    aten.add.Scalar: add,
    aten.sub.Tensor: sub,
    aten.sub.Scalar: sub,
    aten.rsub.Tensor: rsub,
    aten.rsub.Scalar: rsub,
    aten.div.Tensor_mode: div_mode,
    aten.div.Scalar_mode: div_mode,
    aten.floor_divide.default: floor_divide,
    aten.floor_divide.Scalar: floor_divide,
    aten.remainder.Tensor: remainder,
    aten.remainder.Scalar: remainder,
    aten.fmod.Tensor: fmod,
    aten.fmod.Scalar: fmod,
    aten.pow.Tensor_Scalar: power,
    aten.pow.Tensor_Tensor: power,
    aten.pow.Scalar: power,
    aten.square.default: square,
    aten.rsqrt.default: rsqrt,
    aten.expm1.default: expm1,
    aten.exp2.default: exp2,
    aten.log1p.default: log1p,
    aten.log2.default: log_base(2),
    aten.log10.default: log_base(10),
    aten.erfc.default: erfc,
    aten.clamp.default: clamp,
    aten.clamp.Tensor: clamp,
    aten.clip.default: clamp,
    aten.clamp_min.default: clamp,
    aten.clamp_min.Tensor: clamp,
    aten.clamp_max.default: clamp_max,
    aten.clamp_max.Tensor: clamp_max,
    aten.lerp.Scalar: lerp,
    aten.lerp.Tensor: lerp,
    aten.addcmul.default: addcmul,
    aten.addcdiv.default: addcdiv,
    aten.hypot.default: hypot,
    aten.atan2.default: atan2,
    aten.xlogy.Tensor: xlogy,
    aten.sinc.default: sinc,
    aten.outer.default: outer,
    aten.ger.default: outer,
}
