"""Sliding windows of a picture whose size is free: a convolution that takes each place, and its transpose.

Neither needs to know how many windows there are. What is put back reaches as far as the last window does, and is then
cut to the size of the picture, which is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils._sympy.functions import FloorDiv

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.values import Dim, Value


@dataclass(frozen=True)
class Windows:
    """Windows along one axis of a size, free or not: as many places, so far apart, so many strides between them."""

    size: Dim
    kernel: int
    dilation: int
    pad: int
    stride: int

    @property
    def count(self) -> Dim:
        """How many windows there are."""
        reach = self.size + 2 * self.pad - self.dilation * (self.kernel - 1) - 1
        if isinstance(reach, int):
            return reach // self.stride + 1
        return (reach if self.stride == 1 else FloorDiv(reach, self.stride)) + 1


def taken(b: Builder, x: Value, channels: int, axes: Sequence[Windows]) -> Value:
    """The windows of `[batch, channels, height, width]` as `[batch, channels * places, windows]`."""
    x = b.op(
        "Conv",
        x,
        picks(b, channels, axes),
        group=channels,
        strides=[axis.stride for axis in axes],
        dilations=[axis.dilation for axis in axes],
        pads=[axis.pad for axis in axes] * 2,
    )
    return b.reshape(x, b.out_sizes)


def put_back(b: Builder, x: Value, batch: Dim, channels: int, axes: Sequence[Windows]) -> Value:
    """Windows `[batch, channels * places, windows]` added where they came from, `[batch, channels, height, width]`."""
    places = math.prod(axis.kernel for axis in axes)
    x = b.reshape(x, [batch, channels * places, *(axis.count for axis in axes)])
    x = b.op(
        "ConvTranspose",
        x,
        picks(b, channels, axes),
        group=channels,
        strides=[axis.stride for axis in axes],
        dilations=[axis.dilation for axis in axes],
        pads=[*(axis.pad for axis in axes), 0, 0],
        output_padding=[axis.stride - 1 for axis in axes],  # beyond the last window, fewer places than a stride
    )
    return b.op("Slice", x, b.const([0, 0]), b.shape([axis.size for axis in axes]), b.const([2, 3]))


def picks(b: Builder, channels: int, axes: Sequence[Windows]) -> Value:
    """Weights of a convolution of one group a channel that takes each place of its window by itself."""
    kernel = [axis.kernel for axis in axes]
    each = np.eye(math.prod(kernel)).reshape(-1, 1, *kernel)
    return b.const(np.tile(each, (channels, 1, 1, 1)), b.dtype)
