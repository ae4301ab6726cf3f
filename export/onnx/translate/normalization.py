"""Normalizations: batch, layer, group, root mean square.

Some return the mean and the inverse deviation beside the result, which adjoints read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.values import Dim, Value, exact_share, rank, sizes

aten = torch.ops.aten


def batch_norm(
    b: Builder,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value,
    var: Value,
    momentum: float,
    eps: float,
) -> tuple[Value, None, None]:
    """BatchNormalization by stored statistics; the second and third result are empty in torch."""
    channels = b.fixed(sizes(x)[1], "batch normalization")
    weight = b.const(np.ones(channels), b.dtype) if weight is None else weight
    bias = b.const(np.zeros(channels), b.dtype) if bias is None else bias
    return b.op("BatchNormalization", x, weight, bias, mean, var, epsilon=float(eps)), None, None


def _affine(b: Builder, x: Value, weight: Value | None, bias: Value | None, trailing: int) -> Value:
    """One factor and one term for each channel, with `trailing` axes behind the channels."""
    axes = range(1, trailing + 1)
    if weight is not None:
        x = b.op("Mul", x, b.unsqueeze(weight, *axes) if trailing else weight)
    if bias is not None:
        x = b.op("Add", x, b.unsqueeze(bias, *axes) if trailing else bias)
    return x


def batch_norm_own(
    b: Builder, x: Value, weight: Value | None, bias: Value | None, training: bool, momentum: float, eps: float
) -> tuple[Value, ...]:
    """ReduceMean, Sub and Mul: batch normalization by the statistics at hand, and their mean and inverse deviation."""
    axes = [axis for axis in range(rank(x)) if axis != 1]
    channels = sizes(x)[1]
    mean = b.reduce("ReduceMean", x, axes, True)
    centred = b.op("Sub", x, mean)
    variance = b.reduce("ReduceMean", b.op("Mul", centred, centred), axes, True)
    scale = b.op("Reciprocal", b.op("Sqrt", b.op("Add", variance, b.const(eps, b.dtype))))
    result = _affine(b, b.op("Mul", centred, scale), weight, bias, rank(x) - 2)
    return result, b.reshape(mean, [channels]), b.reshape(scale, [channels])


def native_layer_norm(
    b: Builder, x: Value, shape: Sequence[Dim], weight: Value | None, bias: Value | None, eps: float
) -> tuple[Value, ...]:
    """LayerNormalization with its mean and inverse deviation; written out for float64."""
    if weight is None:
        weight = b.const(np.ones([b.fixed(size, "layer normalization") for size in shape]), b.dtype)
    if b.dtype != ir.DataType.DOUBLE:
        attributes = {"axis": rank(x) - len(shape), "epsilon": float(eps)}
        return b.ops("LayerNormalization", x, weight, bias, dtypes=(None, None, None), **attributes)
    # ONNX keeps epsilon and the statistics in float32, whatever the type of the input.
    axes = list(range(-len(shape), 0))
    mean = b.reduce("ReduceMean", x, axes, True)
    centred = b.op("Sub", x, mean)
    variance = b.reduce("ReduceMean", b.op("Mul", centred, centred), axes, True)
    scale = b.op("Reciprocal", b.op("Sqrt", b.op("Add", variance, b.const(eps, b.dtype))))
    result = b.op("Mul", b.op("Mul", centred, scale), weight)
    return result if bias is None else b.op("Add", result, bias), mean, scale


def group_norm(
    b: Builder, x: Value, groups: int, weight: Value | None, bias: Value | None, eps: float, *_: object
) -> Value:
    """InstanceNormalization of the groups, then one Mul and one Add for the channels."""
    before = sizes(x)
    inner = exact_share(before[1:], groups)
    grouped = b.reshape(x, [before[0], groups, inner])
    ones, zeros = b.const(np.ones(groups), b.dtype), b.const(np.zeros(groups), b.dtype)
    normal = b.op("InstanceNormalization", grouped, ones, zeros, epsilon=float(eps))
    return _affine(b, b.reshape(normal, before), weight, bias, rank(x) - 2)


def native_group_norm(
    b: Builder,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    n: Dim,
    channels: Dim,
    inner: Dim,
    groups: int,
    eps: float,
) -> tuple[Value, ...]:
    """InstanceNormalization of the groups, and ReduceMean for their mean and inverse deviation."""
    before = sizes(x)
    each = exact_share(before[1:], groups)
    grouped = b.reshape(x, [before[0], groups, each])
    mean = b.reduce("ReduceMean", grouped, [2], True)
    centred = b.op("Sub", grouped, mean)
    variance = b.reduce("ReduceMean", b.op("Mul", centred, centred), [2], True)
    scale = b.op("Reciprocal", b.op("Sqrt", b.op("Add", variance, b.const(eps, b.dtype))))
    return group_norm(b, x, groups, weight, bias, eps), b.squeeze(mean, 2), b.squeeze(scale, 2)


def fused_rms_norm(
    b: Builder, x: Value, shape: Sequence[Dim], weight: Value | None, eps: float | None
) -> tuple[Value, Value]:
    """ReduceMean of the squares, Sqrt, Reciprocal and Mul: the value over its root mean square, and the factor."""
    eps = float(np.finfo(b.dtype.numpy()).eps) if eps is None else eps
    axes = list(range(-len(shape), 0))
    mean = b.reduce("ReduceMean", b.op("Mul", x, x), axes, True)
    scale = b.op("Reciprocal", b.op("Sqrt", b.op("Add", mean, b.const(eps, b.dtype))))
    result = b.op("Mul", x, scale)
    return (result if weight is None else b.op("Mul", result, weight)), scale


def rms_norm(b: Builder, x: Value, shape: Sequence[Dim], weight: Value | None, eps: float | None) -> Value:
    """ReduceMean of the squares, Sqrt, Reciprocal and Mul: the value over its root mean square."""
    return fused_rms_norm(b, x, shape, weight, eps)[0]


TABLE: dict[OpOverload, Translator] = {
    aten._native_batch_norm_legit_no_training.default: batch_norm,
    aten._native_batch_norm_legit.no_stats: batch_norm_own,
    aten.native_layer_norm.default: native_layer_norm,
    aten.group_norm.default: group_norm,
    aten.native_group_norm.default: native_group_norm,
    aten.rms_norm.default: rms_norm,
    aten._fused_rms_norm.default: fused_rms_norm,
}
