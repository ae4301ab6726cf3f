"""Convolutions and transposed convolutions, in one to three dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.values import Value, rank, sizes

aten = torch.ops.aten
Ints = int | Sequence[int]


def spread(value: Ints, n: int) -> list[int]:
    """One number for each of `n` axes, however it was given."""
    given = [value] if isinstance(value, int) else list(value)
    return given * n if len(given) == 1 else given


def batched(b: Builder, x: Value, spatial: int) -> tuple[Value, bool]:
    """`x` with a batch axis, and whether one had to be added."""
    return (b.unsqueeze(x, 0), True) if rank(x) == spatial + 1 else (x, False)


def convolution(
    b: Builder,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
) -> Value:
    """Every convolution, as aten's one operator for all of them."""
    n = rank(weight) - 2
    pads = spread(padding, n)
    x, added = batched(b, x, n)
    result = b.op(
        "ConvTranspose" if transposed else "Conv",
        x,
        weight,
        bias,
        kernel_shape=[b.fixed(size, "a kernel") for size in sizes(weight)[2:]],
        strides=spread(stride, n),
        pads=[*pads, *pads],
        dilations=spread(dilation, n),
        group=groups,
        output_padding=spread(output_padding, n) if transposed else None,
    )
    return b.squeeze(result, 0) if added else result


def conv(
    b: Builder, x: Value, weight: Value, bias: Value | None, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Value:
    """A convolution with numbers for padding."""
    return convolution(b, x, weight, bias, stride, padding, dilation, False, 0, groups)


def conv_padding(
    b: Builder, x: Value, weight: Value, bias: Value | None, stride: Ints, padding: str, dilation: Ints, groups: int
) -> Value:
    """A convolution with "same" or "valid" padding; "same" puts the odd one at the end."""
    n = rank(weight) - 2
    kernel = [b.fixed(size, "a kernel") for size in sizes(weight)[2:]]
    total = [
        (size - 1) * step if padding == "same" else 0 for size, step in zip(kernel, spread(dilation, n), strict=True)
    ]
    before = [size // 2 for size in total]
    x, added = batched(b, x, n)
    result = b.op(
        "Conv",
        x,
        weight,
        bias,
        kernel_shape=kernel,
        strides=spread(stride, n),
        pads=before + [size - half for size, half in zip(total, before, strict=True)],
        dilations=spread(dilation, n),
        group=groups,
    )
    return b.squeeze(result, 0) if added else result


def conv_transpose(
    b: Builder,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Ints,
    padding: Ints,
    output_padding: Ints,
    groups: int,
    dilation: Ints,
) -> Value:
    """A transposed convolution."""
    return convolution(b, x, weight, bias, stride, padding, dilation, True, output_padding, groups)


TABLE: dict[OpOverload, Translator] = {
    aten.convolution.default: convolution,
    aten.conv1d.default: conv,
    aten.conv2d.default: conv,
    aten.conv3d.default: conv,
    aten.conv1d.padding: conv_padding,
    aten.conv2d.padding: conv_padding,
    aten.conv3d.padding: conv_padding,
    aten.conv_transpose1d.default: conv_transpose,
    aten.conv_transpose2d.input: conv_transpose,
    aten.conv_transpose3d.input: conv_transpose,
}
