"""Comparisons, logic, and choices by a mask."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import from_torch_dtype, to_torch_dtype
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.values import BOOL, FLOATS, Scalar, Value, sizes

aten = torch.ops.aten
Operand = Value | Scalar
INT32 = ir.DataType.INT32


@lru_cache
def _sample(dtype: ir.DataType, scalar: bool) -> torch.Tensor:
    return torch.zeros(() if scalar else (1,), dtype=to_torch_dtype(dtype))


def promoted(x: Operand, y: Operand) -> ir.DataType:
    """The type torch compares two operands in."""
    first, second = (
        _sample(part.dtype, not sizes(part)) if isinstance(part, ir.Value) and part.dtype is not None else part
        for part in (x, y)
    )
    return from_torch_dtype(torch.result_type(first, second))  # type: ignore[arg-type]


def comparison(op_type: str, negated: bool = False) -> Translator:
    """Equal, Less, Greater and the like, in the type torch compares in; Not for the opposite."""

    def translate(b: Builder, x: Operand, y: Operand) -> Value:
        dtype = promoted(x, y)
        if dtype == BOOL and op_type != "Equal":
            dtype = INT32
        result = b.op(op_type, b.operand(x, dtype), b.operand(y, dtype))
        return b.op("Not", result) if negated else result

    return translate


def logical(op_type: str) -> Translator:
    """And, Or or Xor of truth values."""

    def translate(b: Builder, x: Value, y: Value) -> Value:
        return b.op(op_type, b.cast(x, BOOL), b.cast(y, BOOL))

    return translate


def bitwise(op_type: str) -> Translator:
    """And, Or or Xor of truth values; BitwiseAnd, BitwiseOr or BitwiseXor of integers."""

    def translate(b: Builder, x: Operand, y: Operand) -> Value:
        name = op_type if b.dtype == BOOL else f"Bitwise{op_type}"
        return b.op(name, b.operand(x, b.dtype), b.operand(y, b.dtype))

    return translate


def logical_not(b: Builder, x: Value) -> Value:
    """Not, of truth values."""
    return b.op("Not", b.cast(x, BOOL))


def bitwise_not(b: Builder, x: Value) -> Value:
    """Not of truth values, BitwiseNot of integers."""
    return b.op("Not" if b.dtype == BOOL else "BitwiseNot", x)


def where(b: Builder, mask: Value, x: Operand, y: Operand) -> Value:
    """Where: `x` where the mask holds, else `y`."""
    return b.op("Where", b.cast(mask, BOOL), b.operand(x, b.dtype), b.operand(y, b.dtype))


def masked_fill(b: Builder, x: Value, mask: Value, value: Operand) -> Value:
    """Where: `value` where the mask holds, else `x`."""
    return b.op("Where", b.cast(mask, BOOL), b.operand(value, b.dtype), x)


def isnan(b: Builder, x: Value) -> Value:
    """IsNaN; of integers Not of Equal with themselves, which is false everywhere."""
    return b.op("IsNaN", x) if x.dtype in FLOATS else b.op("Not", b.op("Equal", x, x))


def isinf(b: Builder, x: Value) -> Value:
    """IsInf of the value in float32."""
    return b.op("IsInf", b.cast(x, ir.DataType.FLOAT))


def isfinite(b: Builder, x: Value) -> Value:
    """Not of IsNaN Or IsInf."""
    return b.op("Not", b.op("Or", isnan(b, x), isinf(b, x)))


def nan_to_num(b: Builder, x: Value, nan: float | None, high: float | None, low: float | None) -> Value:
    """Where, three times: numbers for NaN and for the two infinities."""
    limits = np.finfo(b.dtype.numpy())
    x = b.op("Where", b.op("IsNaN", x), b.const(nan or 0.0, b.dtype), x)
    infinity = b.const(np.inf, b.dtype), b.const(-np.inf, b.dtype)
    x = b.op("Where", b.op("Equal", x, infinity[0]), b.const(limits.max if high is None else high, b.dtype), x)
    return b.op("Where", b.op("Equal", x, infinity[1]), b.const(limits.min if low is None else low, b.dtype), x)


_COMPARISONS = {
    (aten.eq.Tensor, aten.eq.Scalar): comparison("Equal"),
    (aten.ne.Tensor, aten.ne.Scalar): comparison("Equal", negated=True),
    (aten.gt.Tensor, aten.gt.Scalar): comparison("Greater"),
    (aten.ge.Tensor, aten.ge.Scalar): comparison("GreaterOrEqual"),
    (aten.lt.Tensor, aten.lt.Scalar): comparison("Less"),
    (aten.le.Tensor, aten.le.Scalar): comparison("LessOrEqual"),
    (aten.bitwise_and.Tensor, aten.bitwise_and.Scalar): bitwise("And"),
    (aten.bitwise_or.Tensor, aten.bitwise_or.Scalar): bitwise("Or"),
    (aten.bitwise_xor.Tensor, aten.bitwise_xor.Scalar): bitwise("Xor"),
    (aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar): where,
    (aten.masked_fill.Scalar, aten.masked_fill.Tensor): masked_fill,
}

TABLE: dict[OpOverload, Translator] = {
    **{operator: translator for operators, translator in _COMPARISONS.items() for operator in operators},
    aten.logical_and.default: logical("And"),
    aten.logical_or.default: logical("Or"),
    aten.logical_xor.default: logical("Xor"),
    aten.logical_not.default: logical_not,
    aten.bitwise_not.default: bitwise_not,
    aten.isnan.default: isnan,
    aten.isinf.default: isinf,
    aten.isfinite.default: isfinite,
    aten.nan_to_num.default: nan_to_num,
}
