"""Convolutions and transposed convolutions, in one to three dimensions.

A captured graph has one operator for all of them, `aten.convolution`.
"""

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
    """Conv, or ConvTranspose where it is transposed."""
    n = rank(weight) - 2
    pads = spread(padding, n)
    return b.op(
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


TABLE: dict[OpOverload, Translator] = {aten.convolution.default: convolution}
