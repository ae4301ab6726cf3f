"""VJP rules of padding: with a number, or with values of the tensor itself.

`ct` is the cotangent of the output; y, in the code `out`, is the primal output. A rule returns one cotangent for each
tensor argument, ct_x for x. `fxpullback.vjp.rule` explains this and the values ZERO, ABSENT and NOT_DIFFERENTIABLE.

`sides` holds (before, after) for each padded axis, the last axis first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fxpullback.graph.ir import aten
from fxpullback.graph.shapes import is_free
from fxpullback.vjp.rule import NOT_DIFFERENTIABLE, vjp
from fxpullback.vjp.shape import pad_axis


@vjp(aten.constant_pad_nd.default, kind="linear")
def constant_pad(ct: Tensor, out: Tensor, x: Tensor, sides: list[int], value: float = 0.0) -> tuple[Any]:
    """y = x with `value` around it:  ct_x = ct without the padding; a negative side cuts x, and ct_x is 0 there."""
    for i in range(len(sides) // 2):
        axis, (before, after) = x.ndim - 1 - i, sides[2 * i : 2 * i + 2]
        if is_free(before) or is_free(after):
            ct = pad_axis(ct, axis, -before, -after)
            continue
        if before > 0 or after > 0:
            ct = aten.slice.Tensor(ct, axis, max(before, 0), ct.shape[axis] - max(after, 0), 1)
        ct = pad_axis(ct, axis, max(-before, 0), max(-after, 0))
    return (ct,)


@vjp(aten.pad.default, kind="linear")
def pad(ct: Tensor, out: Tensor, x: Tensor, sides: list[int], mode: str = "constant", value: Any = None) -> tuple[Any]:
    """y = x padded with its own values:  ct_x = ct of the middle, plus ct of the padding, each where it was read.

    mode "constant": as `constant_pad`. In the other modes, "reflect", "replicate" and "circular", a negative side gives
    ct_x = NOT_DIFFERENTIABLE.
    """
    if mode == "constant":
        result: tuple[Any] = constant_pad.function(ct, out, x, sides)
        return result
    if any(side < 0 for side in sides):
        return (NOT_DIFFERENTIABLE,)
    for i in range(len(sides) // 2):
        axis, (before, after) = x.ndim - 1 - i, sides[2 * i : 2 * i + 2]
        ct = _UNPADDED[mode](ct, axis, before, after)
    return (ct,)


@vjp(aten.reflection_pad1d.default, aten.reflection_pad2d.default, aten.reflection_pad3d.default, kind="linear")
def reflection_pad(ct: Tensor, out: Tensor, x: Tensor, sides: list[int]) -> tuple[Any]:
    """y = x mirrored at its edges, the edge itself not repeated:  ct_x = as `pad` in mode "reflect"."""
    result: tuple[Any] = pad.function(ct, out, x, sides, "reflect")
    return result


@vjp(aten.replication_pad1d.default, aten.replication_pad2d.default, aten.replication_pad3d.default, kind="linear")
def replication_pad(ct: Tensor, out: Tensor, x: Tensor, sides: list[int]) -> tuple[Any]:
    """y = x with its edges repeated:  ct_x = as `pad` in mode "replicate"."""
    result: tuple[Any] = pad.function(ct, out, x, sides, "replicate")
    return result


def _sides(ct: Tensor, axis: int, before: int, after: int) -> tuple[Tensor, Tensor, Tensor]:
    """Three parts of ct along one axis: the padding before, the middle, the padding after."""
    size = ct.shape[axis]
    parts = ((0, before), (before, size - after), (size - after, size))
    first, middle, last = (aten.slice.Tensor(ct, axis, start, stop, 1) for start, stop in parts)
    return first, middle, last


def _unreflected(ct: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Adjoint of mirroring along one axis: y begins with x[before], .., x[1] and ends with x[-2], .., x[-1 - after]."""
    first, middle, last = _sides(ct, axis, before, after)
    size = middle.shape[axis]
    if before:
        middle = middle + pad_axis(torch.flip(first, [axis]), axis, 1, size - before - 1)
    if after:
        middle = middle + pad_axis(torch.flip(last, [axis]), axis, size - after - 1, 1)
    return middle


def _unreplicated(ct: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Adjoint of repeating the edges along one axis: y begins with copies of x[0] and ends with copies of x[-1]."""
    first, middle, last = _sides(ct, axis, before, after)
    size = middle.shape[axis]
    if before:
        middle = middle + pad_axis(first.sum([axis], keepdim=True), axis, 0, size - 1)
    if after:
        middle = middle + pad_axis(last.sum([axis], keepdim=True), axis, size - 1, 0)
    return middle


def _unwrapped(ct: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Adjoint of going round along one axis: y begins with the end of x and ends with its beginning."""
    first, middle, last = _sides(ct, axis, before, after)
    size = middle.shape[axis]
    if before:
        middle = middle + pad_axis(first, axis, size - before, 0)
    if after:
        middle = middle + pad_axis(last, axis, 0, size - after)
    return middle


_UNPADDED = {"reflect": _unreflected, "replicate": _unreplicated, "circular": _unwrapped}


RULES = (constant_pad, pad, reflection_pad, replication_pad)
