"""Sums, means, extremes, norms: many elements into one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir
import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.values import BOOL, INT64, Scalar, Value, axis_of, product, rank, sizes

aten = torch.ops.aten
Axes = int | Sequence[int] | None


def listed(axes: Axes) -> list[int] | None:
    """Axes as a list; none at all are all of them."""
    if axes is None:
        return None
    return [axes] if isinstance(axes, int) else list(axes) or None


def reduction(op_type: str) -> Translator:
    """ReduceSum or another of the Reduce operators, over the axes given."""

    def translate(b: Builder, x: Value, axes: Axes = None, keepdims: bool = False, *_: object) -> Value:
        return b.reduce(op_type, b.cast(x, b.dtype), listed(axes), keepdims)

    return translate


def whole(op_type: str) -> Translator:
    """ReduceSum or another of the Reduce operators, over all axes; what else is given is a type."""

    def translate(b: Builder, x: Value, *_: object) -> Value:
        return b.reduce(op_type, b.cast(x, b.dtype), None, False)

    return translate


def extreme(kind: str) -> Translator:
    """ReduceMax and ArgMax, or ReduceMin and ArgMin: the extreme along an axis, and its first place."""

    def translate(b: Builder, x: Value, axis: int, keepdims: bool) -> tuple[Value, Value]:
        place = b.op(f"Arg{kind}", x, axis=axis_of(axis, rank(x)), keepdims=int(keepdims))
        return b.reduce(f"Reduce{kind}", x, [axis], keepdims), place

    return translate


def argument(kind: str) -> Translator:
    """ArgMax or ArgMin, along an axis or of the flattened tensor: the first place of the extreme."""

    def translate(b: Builder, x: Value, axis: int | None, keepdims: bool) -> Value:
        if axis is not None:
            return b.op(f"Arg{kind}", x, axis=axis_of(axis, rank(x)), keepdims=int(keepdims))
        flat = b.op("Reshape", x, b.const([-1]))
        return b.reshape(b.op(f"Arg{kind}", flat, axis=0, keepdims=0), b.out_sizes)

    return translate


def truth(kind: str) -> Translator:
    """ReduceMax or ReduceMin of the truth values as integers: whether any, or all, are true."""

    def translate(b: Builder, x: Value, axes: Axes = None, keepdims: bool = False) -> Value:
        numbers = b.cast(b.cast(x, BOOL), ir.DataType.INT32)
        return b.cast(b.reduce(f"Reduce{kind}", numbers, listed(axes), keepdims), BOOL)

    return translate


def _moments(b: Builder, x: Value, axes: Axes, correction: Scalar, keepdims: bool) -> tuple[Value, Value]:
    """Variance and mean, over the axes given; the variance divided by the count less the correction."""
    chosen = listed(axes)
    mean = b.reduce("ReduceMean", x, chosen, True)
    centred = b.op("Sub", x, mean)
    variance = b.reduce("ReduceMean", b.op("Mul", centred, centred), chosen, keepdims)
    if correction:
        before = sizes(x)
        count = product([before[axis] for axis in chosen or range(len(before))])
        if not isinstance(count, int):
            up, down = b.scalar(count, b.dtype), b.scalar(count - correction, b.dtype)
            variance = b.op("Mul", variance, b.op("Div", up, down))
            return variance, mean if keepdims else b.reduce("ReduceMean", x, chosen, False)
        factor = count / (count - correction) if count > correction else math.nan
        variance = b.op("Mul", variance, b.const(factor, b.dtype))
    return variance, mean if keepdims else b.reduce("ReduceMean", x, chosen, False)


def var(b: Builder, x: Value, axes: Axes = None, correction: Scalar | None = 1, keepdims: bool = False) -> Value:
    """ReduceMean of the squared distance from the ReduceMean, corrected by a Mul: the variance."""
    return _moments(b, x, axes, 1 if correction is None else correction, keepdims)[0]


def var_mean(
    b: Builder, x: Value, axes: Axes = None, correction: Scalar | None = 1, keepdims: bool = False
) -> tuple[Value, Value]:
    """ReduceMean twice, as for the variance alone: the variance and the mean."""
    return _moments(b, x, axes, 1 if correction is None else correction, keepdims)


def std(b: Builder, x: Value, axes: Axes = None, correction: Scalar | None = 1, keepdims: bool = False) -> Value:
    """Sqrt of the variance."""
    return b.op("Sqrt", var(b, x, axes, correction, keepdims))


def std_mean(
    b: Builder, x: Value, axes: Axes = None, correction: Scalar | None = 1, keepdims: bool = False
) -> tuple[Value, Value]:
    """Sqrt of the variance, and ReduceMean."""
    variance, mean = var_mean(b, x, axes, correction, keepdims)
    return b.op("Sqrt", variance), mean


def vector_norm(
    b: Builder, x: Value, order: Scalar | None = 2, axes: Axes = None, keepdims: bool = False, *_: object
) -> Value:
    """ReduceL2 or ReduceL1; for other orders Abs, Pow and a Reduce operator."""
    x, chosen = b.cast(x, b.dtype), listed(axes)
    if order is None or order == 2:
        return b.reduce("ReduceL2", x, chosen, keepdims)
    if order == 1:
        return b.reduce("ReduceL1", x, chosen, keepdims)
    size = b.op("Abs", x)
    if order in (math.inf, -math.inf):
        return b.reduce("ReduceMax" if order > 0 else "ReduceMin", size, chosen, keepdims)
    if order == 0:
        counted = b.cast(b.cast(x, BOOL), b.dtype)
        return b.reduce("ReduceSum", counted, chosen, keepdims)
    total = b.reduce("ReduceSum", b.op("Pow", size, b.const(order, b.dtype)), chosen, keepdims)
    return b.op("Pow", total, b.const(1 / order, b.dtype))


def cumsum(b: Builder, x: Value, axis: int, *_: object) -> Value:
    """CumSum along an axis."""
    return b.op("CumSum", b.cast(x, b.dtype), b.const(axis_of(axis, rank(x)))) if rank(x) else b.cast(x, b.dtype)


def count_nonzero(b: Builder, x: Value, axes: Axes = None) -> Value:
    """ReduceSum of the truth values as integers: how many elements are not zero."""
    return b.reduce("ReduceSum", b.cast(b.cast(x, BOOL), INT64), listed(axes), False)


TABLE: dict[OpOverload, Translator] = {
    aten.sum.dim_IntList: reduction("ReduceSum"),
    aten.sum.default: whole("ReduceSum"),
    aten.mean.dim: reduction("ReduceMean"),
    aten.mean.default: whole("ReduceMean"),
    aten.prod.dim_int: reduction("ReduceProd"),
    aten.prod.default: whole("ReduceProd"),
    aten.amax.default: reduction("ReduceMax"),
    aten.amin.default: reduction("ReduceMin"),
    aten.max.default: whole("ReduceMax"),
    aten.min.default: whole("ReduceMin"),
    aten.max.dim: extreme("Max"),
    aten.min.dim: extreme("Min"),
    aten.argmax.default: argument("Max"),
    aten.argmin.default: argument("Min"),
    aten.logsumexp.default: reduction("ReduceLogSumExp"),
    aten.any.default: truth("Max"),
    aten.any.dim: truth("Max"),
    aten.any.dims: truth("Max"),
    aten.all.default: truth("Min"),
    aten.all.dim: truth("Min"),
    aten.all.dims: truth("Min"),
    aten.var.correction: var,
    aten.std.correction: std,
    aten.var_mean.correction: var_mean,
    aten.std_mean.correction: std_mean,
    aten.linalg_vector_norm.default: vector_norm,
    aten.cumsum.default: cumsum,
    aten.count_nonzero.default: count_nonzero,
    aten.count_nonzero.dim_IntList: count_nonzero,
}
