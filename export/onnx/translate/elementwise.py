"""Arithmetic, one element at a time.

ONNX takes operands of one type; torch promotes them. So operands are cast to the type that the graph says.
"""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.values import BOOL, FLOATS, Scalar, Value

aten = torch.ops.aten
Operand = Value | Scalar


def rounding(op_type: str) -> Translator:
    """Floor, Ceil or Round; no node for integers."""

    def translate(b: Builder, x: Value, *_: object) -> Value:
        return b.op(op_type, x) if x.dtype in FLOATS else x

    return translate


def binary(op_type: str, of_bools: str | None = None) -> Translator:
    """Mul, Div, Max or Min of two operands that broadcast; And or Or where they are truth values."""

    def translate(b: Builder, x: Operand, y: Operand, *_: object) -> Value:
        name = of_bools if of_bools and b.dtype == BOOL else op_type
        return b.op(name, b.operand(x, b.dtype), b.operand(y, b.dtype))

    return translate


def identity(b: Builder, x: Value, *_: object) -> Value:
    """Cast where the type changes, else no node."""
    return b.cast(x, b.dtype)


def scaled(b: Builder, x: Operand, alpha: Scalar) -> Value:
    """`alpha * x`, in the type of the result."""
    x = b.operand(x, b.dtype)
    return x if alpha == 1 else b.op("Mul", x, b.const(alpha, b.dtype))


def add(b: Builder, x: Operand, y: Operand, alpha: Scalar = 1) -> Value:
    """Add, with Mul for a factor: `x + alpha * y`; Or of truth values."""
    if b.dtype == BOOL:
        return b.op("Or", b.operand(x, BOOL), b.operand(y, BOOL))
    return b.op("Add", b.operand(x, b.dtype), scaled(b, y, alpha))


def sub(b: Builder, x: Operand, y: Operand, alpha: Scalar = 1) -> Value:
    """Sub, with Mul for a factor: `x - alpha * y`."""
    return b.op("Sub", b.operand(x, b.dtype), scaled(b, y, alpha))


def rsub(b: Builder, x: Operand, y: Operand, alpha: Scalar = 1) -> Value:
    """Sub, with Mul for a factor: `y - alpha * x`."""
    return b.op("Sub", b.operand(y, b.dtype), scaled(b, x, alpha))


def truncate(b: Builder, x: Value) -> Value:
    """Sign times Floor of Abs: rounded towards zero."""
    return b.op("Mul", b.op("Sign", x), b.op("Floor", b.op("Abs", x)))


def trunc(b: Builder, x: Value) -> Value:
    """Sign times Floor of Abs: rounded towards zero; no node for integers."""
    return truncate(b, x) if x.dtype in FLOATS else x


def frac(b: Builder, x: Value) -> Value:
    """Sub of the truncated value."""
    return b.op("Sub", x, truncate(b, x))


def floor_divide(b: Builder, x: Operand, y: Operand) -> Value:
    """Floor of Div; for integers Div of `x - mod(x, y)`, as ONNX divides them towards zero."""
    x, y = b.operand(x, b.dtype), b.operand(y, b.dtype)
    if b.dtype in FLOATS:
        return b.op("Floor", b.op("Div", x, y))
    return b.op("Div", b.op("Sub", x, b.op("Mod", x, y)), y)


def div_mode(b: Builder, x: Operand, y: Operand, mode: str | None) -> Value:
    """Div, with Floor where it rounds down and Sign, Abs and Floor where it rounds towards zero."""
    if mode == "floor":
        return floor_divide(b, x, y)
    quotient = b.op("Div", b.operand(x, b.dtype), b.operand(y, b.dtype))
    return truncate(b, quotient) if mode == "trunc" and b.dtype in FLOATS else quotient


def remainder(b: Builder, x: Operand, y: Operand) -> Value:
    """Mod of integers; of floats `x - floor(x / y) * y` in Div, Floor, Mul and Sub. It has the sign of the divisor."""
    x, y = b.operand(x, b.dtype), b.operand(y, b.dtype)
    if b.dtype not in FLOATS:
        return b.op("Mod", x, y)
    return b.op("Sub", x, b.op("Mul", b.op("Floor", b.op("Div", x, y)), y))


def fmod(b: Builder, x: Operand, y: Operand) -> Value:
    """Mod with `fmod=1`: the remainder with the sign of the dividend."""
    return b.op("Mod", b.operand(x, b.dtype), b.operand(y, b.dtype), fmod=1)


def power(b: Builder, x: Operand, exponent: Operand) -> Value:
    """Pow; Mul, Sqrt or Reciprocal where the exponent is the number 2, 0.5 or -1."""
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


def clamp(b: Builder, x: Value, low: Operand | None, high: Operand | None = None) -> Value:
    """Clip between numbers; Max and Min where a bound is a tensor."""
    x = b.cast(x, b.dtype)
    scalars = not isinstance(low, ir.Value) and not isinstance(high, ir.Value)
    if scalars:
        bounds = [None if bound is None else b.operand(bound, b.dtype) for bound in (low, high)]
        return b.op("Clip", x, *bounds)
    if low is not None:
        x = b.op("Max", x, b.operand(low, b.dtype))
    return x if high is None else b.op("Min", x, b.operand(high, b.dtype))


def addcmul(b: Builder, x: Value, y: Value, z: Value, value: Scalar) -> Value:
    """Mul and Add: `x + value * y * z`."""
    return b.op("Add", b.cast(x, b.dtype), scaled(b, b.op("Mul", b.cast(y, b.dtype), b.cast(z, b.dtype)), value))


def addcdiv(b: Builder, x: Value, y: Value, z: Value, value: Scalar) -> Value:
    """Div, Mul and Add: `x + value * y / z`."""
    return b.op("Add", b.cast(x, b.dtype), scaled(b, b.op("Div", b.cast(y, b.dtype), b.cast(z, b.dtype)), value))


_BINARY = {
    aten.mul.Tensor: ("Mul", "And"),
    aten.div.Tensor: ("Div", None),
    aten.maximum.default: ("Max", "Or"),
    aten.minimum.default: ("Min", "And"),
}

TABLE: dict[OpOverload, Translator] = {
    **{operator: binary(*names) for operator, names in _BINARY.items()},
    **dict.fromkeys((aten._to_copy.default, aten.alias_copy.default, aten.detach_copy.default), identity),
    aten.floor.default: rounding("Floor"),
    aten.ceil.default: rounding("Ceil"),
    aten.round.default: rounding("Round"),
    aten.trunc.default: trunc,
    aten.frac.default: frac,
    aten.add.Tensor: add,
    aten.sub.Tensor: sub,
    aten.rsub.Tensor: rsub,
    aten.rsub.Scalar: rsub,
    aten.div.Tensor_mode: div_mode,
    aten.div.Scalar_mode: div_mode,
    aten.remainder.Tensor: remainder,
    aten.remainder.Scalar: remainder,
    aten.fmod.Tensor: fmod,
    aten.fmod.Scalar: fmod,
    aten.pow.Tensor_Scalar: power,
    aten.pow.Tensor_Tensor: power,
    aten.pow.Scalar: power,
    aten.clamp.default: clamp,
    aten.clamp.Tensor: clamp,
    aten.addcmul.default: addcmul,
    aten.addcdiv.default: addcdiv,
}
