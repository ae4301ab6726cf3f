"""Pooling: windows of a fixed size, and adaptive ones.

Ceil mode and divisors are written out in padding and constants: for both, runtimes differ in what they do at the edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.convolution import Ints, spread
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.values import INT64, Value, dim, rank, sizes

aten = torch.ops.aten


def _batched(b: Builder, x: Value, spatial: int) -> tuple[Value, bool]:
    """`x` with a batch axis, and whether one had to be added."""
    return (b.unsqueeze(x, 0), True) if rank(x) == spatial + 1 else (x, False)


def _spatial(b: Builder, x: Value, n: int) -> list[int]:
    return [b.fixed(size, "pooling") for size in sizes(x)[-n:]]


def _output(b: Builder, n: int) -> list[int]:
    val = b.out[0] if isinstance(b.out, (tuple, list)) else b.out
    return [b.fixed(dim(size), "pooling") for size in val.shape[-n:]]


def _end(
    b: Builder,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    ceil: bool,
) -> list[int]:
    """The padding at the end of each axis."""
    if not ceil:
        return list(pads)
    n = len(kernel)
    return _overhang(_spatial(b, x, n), _output(b, n), kernel, stride, pads, dilation)


def _overhang(
    before: Sequence[int],
    after: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """The padding at the end of each axis that makes floor-mode windows the ones torch uses.

    Ceil mode is spelled out in padding: the conventions for its last window differ between libraries.
    """
    return [
        max(pad, (out - 1) * step + spread_ * (size - 1) + 1 - length - pad)
        for length, out, size, step, pad, spread_ in zip(before, after, kernel, stride, pads, dilation, strict=True)
    ]


def max_pool(
    b: Builder,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    ceil: bool,
    indices: bool,
) -> tuple[Value, Value | None]:
    """Max pooling and, on demand, the places of the maxima as torch counts them: within a channel."""
    n = len(kernel)
    if ceil and _is_free(x, n):
        if indices:
            raise b.error("the places of maxima in ceil mode at a free size", "Use ceil_mode=False.")
        x, pads = _free_end(b, x, pads, stride, -np.inf), [0] * n
        result, _ = max_pool(b, x, kernel, stride, pads, dilation, False, False)
        return _first_windows(b, result, n), None
    end = _end(b, x, kernel, stride, pads, dilation, ceil)
    before = sizes(x)[-n:]
    x, added = _batched(b, x, n)
    if any(pad >= size for pad, size in zip(end, kernel, strict=True)):
        x, pads, end = _filled(b, x, pads, end, indices), [0] * n, [0] * n
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": stride,
        "pads": [*pads, *end],
        "dilations": dilation,
    }
    if not indices:
        result = b.op("MaxPool", x, **attributes)
        return (b.squeeze(result, 0) if added else result), None
    result, places = b.ops("MaxPool", x, dtypes=(None, INT64), **attributes)
    places = b.op("Mod", places, b.const(math.prod(b.fixed(size, "the places of maxima") for size in before)))
    return (b.squeeze(result, 0), b.squeeze(places, 0)) if added else (result, places)


def _is_free(x: Value, n: int) -> bool:
    return not all(isinstance(size, int) for size in sizes(x)[-n:])


def _free_end(b: Builder, x: Value, pads: Sequence[int], stride: Sequence[int], fill: float) -> Value:
    """Padding by hand, at the end as much as the last window of ceil mode can need at any size."""
    lead, n = [0] * (rank(x) - len(pads)), len(pads)
    ends = [pad + step - 1 for pad, step in zip(pads, stride, strict=True)]
    padded = b.op("Pad", x, b.const([*lead, *pads, *lead, *ends]), b.const(fill, b.dtype), mode="constant")
    before = sizes(x)
    grown = [size + pad + end for size, pad, end in zip(before[-n:], pads, ends, strict=True)]
    padded.meta["sizes"] = (*before[:-n], *grown)
    return padded


def _first_windows(b: Builder, x: Value, n: int) -> Value:
    """As many windows as torch has; padding for any size may have made one more."""
    val = b.out[0] if isinstance(b.out, (tuple, list)) else b.out
    total = val.ndim
    wanted = [dim(size) for size in val.shape[-n:]]
    axes = b.const(list(range(total - n, total)))
    return b.op("Slice", x, b.const([0] * n), b.shape(wanted), axes)


def _free_average(b: Builder, x: Value, k: list[int], steps: list[int], pads: list[int], ceil: bool) -> Value:
    """The mean over the positions of the input in each window, at any size: a pooling over a pooling of ones."""
    n = len(k)
    ends = steps if ceil else [1] * n

    def pooled(values: Value) -> Value:
        padded = _free_end(b, values, pads, ends, 0.0)
        result = b.op("AveragePool", padded, kernel_shape=k, strides=steps, count_include_pad=1)
        return _first_windows(b, result, n) if ceil else result

    before = sizes(x)
    ones = b.expand(b.const(np.ones([1] * len(before)), b.dtype), [1, 1, *before[-n:]])
    return b.op("Div", pooled(x), pooled(ones))


def _filled(b: Builder, x: Value, pads: Sequence[int], end: Sequence[int], indices: bool) -> Value:
    """Padding by hand, where a dilated window reaches further than a runtime lets padding go."""
    if indices:
        raise b.error("the places of maxima in ceil mode with dilation", "Use ceil_mode=False.")
    amounts = b.const([0, 0, *pads, 0, 0, *end])
    return b.op("Pad", x, amounts, b.const(-np.inf, b.dtype), mode="constant")


def max_pooling(n: int) -> Translator:
    """MaxPool in `n` dimensions."""

    def translate(b: Builder, x: Value, kernel: Ints, stride: Ints, pads: Ints, dilation: Ints, ceil: bool) -> Value:
        k = spread(kernel, n)
        return max_pool(b, x, k, spread(stride, n) or k, spread(pads, n), spread(dilation, n), ceil, False)[0]

    return translate


def max_pooling_with_indices(n: int) -> Translator:
    """MaxPool in `n` dimensions with the places of the maxima, by Mod counted within a channel."""

    def translate(
        b: Builder, x: Value, kernel: Ints, stride: Ints, pads: Ints, dilation: Ints, ceil: bool
    ) -> tuple[Value, Value | None]:
        k = spread(kernel, n)
        used = any(user.args[1:] == (1,) for user in b.node.users)
        return max_pool(b, x, k, spread(stride, n) or k, spread(pads, n), spread(dilation, n), ceil, used)

    return translate


def _counts(length: int, out: int, size: int, step: int, pad: int, include_pad: bool) -> list[int]:
    """How many elements torch divides each window of one axis by."""
    starts = [i * step - pad for i in range(out)]
    if include_pad:
        return [min(start + size, length + pad) - start for start in starts]
    return [min(start + size, length) - max(start, 0) for start in starts]


def avg_pooling(n: int) -> Translator:
    """AveragePool in `n` dimensions, and Mul by a constant where a window has another divisor than its size."""

    def translate(
        b: Builder,
        x: Value,
        kernel: Ints,
        stride: Ints,
        pads: Ints,
        ceil: bool,
        include_pad: bool,
        divisor: int | None = None,
    ) -> Value:
        k, padding = spread(kernel, n), spread(pads, n)
        steps = spread(stride, n) or k
        if _is_free(x, n) and not divisor and (ceil or (any(padding) and not include_pad)):
            if ceil and include_pad and any(padding):
                raise b.error("ceil mode that counts padding at a free size", "Use count_include_pad=False.")
            return _free_average(b, x, k, steps, padding, ceil)
        if _is_free(x, n) and ceil:
            padded = _free_end(b, x, padding, steps, 0.0)
            result = b.op("AveragePool", padded, kernel_shape=k, strides=steps, count_include_pad=1)
            times = math.prod(k) / divisor if divisor else 1.0
            return b.op("Mul", _first_windows(b, result, n), b.const(times, b.dtype))
        end = _end(b, x, k, steps, padding, [1] * n, ceil)
        factor = np.asarray(math.prod(k) / divisor if divisor else 1.0)
        if not divisor and (ceil or (any(padding) and not include_pad)):
            before, after = _spatial(b, x, n), _output(b, n)
            counts = np.ones(())
            for part in zip(before, after, k, steps, padding, strict=True):
                counts = np.multiply.outer(counts, np.asarray(_counts(*part, include_pad), dtype=float))
            factor = math.prod(k) / counts
        # Said so, "no padding" also keeps ONNX Runtime from merging a padding in front, which it refuses if it is wide.
        wide = any(padding) or any(end)
        how: dict[str, Any] = {"pads": [*padding, *end], "count_include_pad": 1} if wide else {"auto_pad": "VALID"}
        result = b.op("AveragePool", x, kernel_shape=k, strides=steps, **how)
        if np.all(factor == 1):
            return result
        return b.op("Mul", result, b.const(factor.flat[0] if np.ptp(factor) == 0 else factor, b.dtype))

    return translate


def _windows(length: int, out: int) -> list[tuple[int, int]]:
    """The windows of adaptive pooling along one axis."""
    return [(i * length // out, -(-(i + 1) * length // out)) for i in range(out)]


def adaptive_avg_pooling(n: int) -> Translator:
    """ReduceMean to one place, AveragePool of equal windows, or MatMul with one small matrix for each axis."""

    def translate(b: Builder, x: Value, size: object) -> Value:
        after = _output(b, n)
        if after == [1] * n:
            return b.reduce("ReduceMean", x, list(range(-n, 0)), True)
        before = _spatial(b, x, n)
        if before == after:
            return x
        if all(length % out == 0 for length, out in zip(before, after, strict=True)):
            k = [length // out for length, out in zip(before, after, strict=True)]
            x, added = _batched(b, x, n)
            result = b.op("AveragePool", x, kernel_shape=k, strides=k)
            return b.squeeze(result, 0) if added else result
        total = rank(x)
        for axis in range(n):
            x = along(b, x, total - n + axis, _mean_matrix(before[axis], after[axis]), total)
        return x

    return translate


def _mean_matrix(length: int, out: int) -> npt.NDArray[Any]:
    matrix = np.zeros((out, length))
    for i, (start, end) in enumerate(_windows(length, out)):
        matrix[i, start:end] = 1 / (end - start)
    return matrix


def along(b: Builder, x: Value, axis: int, matrix: npt.NDArray[Any], total: int) -> Value:
    """Apply a constant matrix [out, in] along one axis of a tensor of `total` axes."""
    if matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix))):
        return x
    if axis == total - 1:
        return b.op("MatMul", x, b.const(matrix.T, b.dtype))
    if axis == total - 2:
        return b.op("MatMul", b.const(matrix, b.dtype), x)
    perm = [i for i in range(total) if i != axis] + [axis]
    x = b.op("MatMul", b.op("Transpose", x, perm=perm), b.const(matrix.T, b.dtype))
    return b.op("Transpose", x, perm=[perm.index(i) for i in range(total)])


def adaptive_max_pooling(n: int) -> Translator:
    """ReduceMax to one place, MaxPool of equal windows, or Slice, ReduceMax and Concat for each axis; no indices."""

    def translate(b: Builder, x: Value, size: object) -> tuple[Value, Value | None]:
        if any(user.args[1:] == (1,) for user in b.node.users):
            raise b.error("the indices of adaptive max pooling", "They have no ONNX form here; use only its values.")
        wanted = [dim(size) for size in b.out[0].shape[-n:]]
        if wanted == [1] * n:
            return b.reduce("ReduceMax", x, list(range(-n, 0)), True), None
        before, after, total = _spatial(b, x, n), _output(b, n), rank(x)
        if all(length % out == 0 for length, out in zip(before, after, strict=True)):
            k = [length // out for length, out in zip(before, after, strict=True)]
            return max_pool(b, x, k, k, [0] * n, [1] * n, False, False)
        for axis in range(n):
            at = total - n + axis
            parts = [
                b.reduce("ReduceMax", b.slice(x, at, start, end), [at], True)
                for start, end in _windows(before[axis], after[axis])
            ]
            x = b.concat(parts, at)
        return x, None

    return translate


TABLE: dict[OpOverload, Translator] = {
    aten.max_pool1d.default: max_pooling(1),
    aten.max_pool2d.default: max_pooling(2),
    aten.max_pool3d.default: max_pooling(3),
    aten.max_pool2d_with_indices.default: max_pooling_with_indices(2),
    aten.max_pool3d_with_indices.default: max_pooling_with_indices(3),
    aten.avg_pool1d.default: avg_pooling(1),
    aten.avg_pool2d.default: avg_pooling(2),
    aten.avg_pool3d.default: avg_pooling(3),
    aten.adaptive_avg_pool1d.default: adaptive_avg_pooling(1),
    aten.adaptive_avg_pool2d.default: adaptive_avg_pooling(2),
    aten._adaptive_avg_pool2d.default: adaptive_avg_pooling(2),
    aten.adaptive_avg_pool3d.default: adaptive_avg_pooling(3),
    aten._adaptive_avg_pool3d.default: adaptive_avg_pooling(3),
    aten.adaptive_max_pool1d.default: adaptive_max_pooling(1),
    aten.adaptive_max_pool2d.default: adaptive_max_pooling(2),
    aten.adaptive_max_pool3d.default: adaptive_max_pooling(3),
}
