"""Quantised values. Constants are dequantised when a file is read; what is computed passes a gate of fake quantisation.

`QuantizeLinear` makes a value that is carried as the number it stands for, with its scale and zero point beside it. So
`DequantizeLinear` behind it takes that number as it is, and operators that move integers move the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxpullback.contract.errors import CaptureError
from fxpullback.graph.fake_quantized import FAKE_QUANTIZE, along
from fxpullback.importer.numbers import Array
from fxpullback.importer.site import Node, tensor

RANGES = {
    "uint8": (0, 255),
    "int8": (-128, 127),
    "uint16": (0, 65535),
    "int16": (-32768, 32767),
    "uint4": (0, 15),
    "int4": (-8, 7),
    "uint2": (0, 3),
    "int2": (-2, 1),
}
KINDS = {2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 21: "uint4", 22: "int4", 25: "uint2", 26: "int2"}
"""Types of integers, by their numbers in ONNX."""
CARRIED = {
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Slice", "Split", "Gather", "Expand", "Tile",
    "MaxPool", "GlobalMaxPool", "DepthToSpace", "SpaceToDepth",
}  # fmt: skip
"""Operators that return some of the values they are given, and so of a quantised one its numbers."""


@dataclass(frozen=True, eq=False)
class Quantised:
    """What a quantiser made: the numbers that its levels stand for.

    Attributes:
        value: the numbers.
        scale: by which levels are apart, one number or one for each channel.
        zero: the level of zero, as the scale.
        axis: of the channels; -1 where there is one scale.
    """

    value: Tensor
    scale: Array
    zero: Array
    axis: int = -1

    def levels(self) -> Tensor:
        """The levels without the zero point."""
        made: Tensor = self.value / along(self.value, _like(self.scale, self.value), self.axis)
        return made


def quantise(node: Node, x: Any, scale: Any, zero: Any = None) -> Quantised:
    """To levels that a scale is apart, kept in the range of their type."""
    kind = KINDS.get(node.get("output_dtype", 0), "uint8")
    return quantised(node, x, 1, 2, kind)


def quantised(node: Node, x: Any, at: int, zero_at: int, kind: str = "uint8") -> Quantised:
    """A value at the levels that two inputs of a node say.

    Args:
        node: the node.
        x: what is quantised.
        at: the place of the scale.
        zero_at: the place of the zero point.
        kind: the type where there is no zero point.

    Raises:
        CaptureError: scale or zero point are computed; the type is none of integers.
    """
    step, offset = _given(node, at), node.constant(zero_at)
    kind = kind if offset is None else offset.dtype.name
    if kind not in RANGES:
        raise CaptureError(f"values of type {kind} are not supported")
    if node.get("block_size", 0):
        raise CaptureError("a scale for each block of what is computed is not supported")
    offset = np.zeros_like(step, np.int64) if offset is None else offset.astype(np.int64)
    x = tensor(x)
    axis = node.get("axis", 1) % x.ndim if step.size > 1 else -1
    sizes = [-1] if axis >= 0 else []
    step, offset = step.reshape(sizes), np.broadcast_to(offset.reshape(-1), step.size).reshape(sizes)
    made = FAKE_QUANTIZE(x, _like(step, x), _like(offset, x), axis, *RANGES[kind], True)
    return Quantised(made, step, offset, axis)


def dequantise(node: Node, x: Any, scale: Any, zero: Any = None) -> Any:
    """What was quantised, as floating-point numbers."""
    if isinstance(x, Quantised):
        return _read(node, x, 1, 2)
    values, steps = tensor(x).float(), tensor(scale)
    offset = None if zero is None else tensor(zero).float()
    if steps.numel() > 1:
        steps, offset = (None if v is None else _spread(node, v, values) for v in (steps, offset))
    made = values if offset is None else values - offset
    return (made * steps).to(tensor(scale).dtype)


def _spread(node: Node, given: Tensor, values: Tensor) -> Tensor:
    """Scales of channels or blocks in a shape that broadcasts with the values."""
    axis = node.get("axis", 1) % values.ndim
    if given.ndim == 1:
        return along(values, given, axis)  # type: ignore[no-any-return]
    block = node.get("block_size", 0)
    return given.repeat_interleave(block, axis).narrow(axis, 0, values.shape[axis]) if block else given


def _read(node: Node, x: Quantised, at: int, zero_at: int) -> Tensor:
    """The numbers that a node takes the levels of x for, by its own scale and zero point."""
    step, offset = _given(node, at).reshape(-1), node.constant(zero_at)
    zero = np.zeros_like(step, np.int64) if offset is None else offset.astype(np.int64).reshape(-1)
    if np.array_equal(step, x.scale.reshape(-1)) and np.array_equal(zero, x.zero.reshape(-1)):
        return x.value
    if step.size > 1 or x.axis >= 0:
        raise CaptureError("it dequantises with other scales of channels than the ones it was quantised with")
    shifted = x.levels() + float(x.zero.reshape(-1)[0] - zero[0])
    return shifted * float(step[0])


def carried(x: Quantised, made: Any) -> Any:
    """What an operator of `CARRIED` made of the numbers of x, quantised as x is.

    Raises:
        CaptureError: x has scales of channels, and its axes may be others now.
    """
    if x.axis >= 0:
        raise CaptureError("it moves integers with a scale for each channel, which is not supported")
    if isinstance(made, tuple | list):
        return tuple(Quantised(one, x.scale, x.zero) for one in made)
    return Quantised(made, x.scale, x.zero)


def real(node: Node, x: Any, place: int, axis: int = -1) -> Tensor:
    """An input of an operator of integers as numbers; its scale and zero point are the next two inputs.

    Args:
        node: the node.
        x: the input, quantised or a constant.
        place: of the input.
        axis: of the channels, where it has scales of channels.
    """
    if isinstance(x, Quantised):
        return _read(node, x, place + 1, place + 2)
    held = node.constant(place)
    if held is None:
        raise CaptureError(f"its input {place + 1} is of integers that no QuantizeLinear made")
    step, offset = _given(node, place + 1), node.constant(place + 2)
    zero = np.zeros((), np.float32) if offset is None else offset.astype(np.float32)
    sizes = [1] * held.ndim
    if held.ndim:
        sizes[axis] = -1
    placed = [v.reshape(sizes) if v.ndim == 1 and v.size > 1 else v for v in (zero, step)]
    return torch.from_numpy(np.asarray((held.astype(np.float32) - placed[0]) * placed[1], np.float32))


def _given(node: Node, place: int) -> Array:
    step = node.constant(place)
    if step is None:
        raise CaptureError(
            "its scale is computed while the model runs. Quantise with fixed scales, "
            "onnxruntime.quantization.quantize_static"
        )
    return step


def _like(array: Array, x: Tensor) -> Tensor:
    return torch.from_numpy(np.array(array, np.float64 if x.dtype is torch.float64 else np.float32)).to(x.dtype)


def ranged_anew(node: Node, *given: Any) -> Any:
    """Refuse scales that are those of what the model is just given.

    Raises:
        CaptureError: always.
    """
    raise CaptureError(
        "it takes the scale from the values it is given, all samples of a batch together: the logits of a sample "
        "depend on the others, and the scale has no derivative. Quantise with fixed scales, "
        "onnxruntime.quantization.quantize_static(quant_format=QuantFormat.QDQ), or give the file before quantisation"
    )


OPERATORS: dict[str, Callable[..., Any]] = {
    "QuantizeLinear": quantise,
    "DequantizeLinear": dequantise,
    "com.microsoft.QuantizeLinear": quantise,
    "com.microsoft.DequantizeLinear": dequantise,
    "DynamicQuantizeLinear": ranged_anew,
    "com.microsoft.DynamicQuantizeMatMul": ranged_anew,
    "com.microsoft.DynamicQuantizeLSTM": ranged_anew,
}
