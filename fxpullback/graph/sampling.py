"""Values read between the places of a picture: `grid_sample`, `affine_grid` and deformable convolution.

To read a place is a product with weights of all places of an axis, zero but at the neighbours of what is read. So the
adjoint is a product too, with the picture as with the grid, and needs no scatter. Neighbours are found by rounding
down, which is held constant: at a whole place the derivative is torch's own, that to the right.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from fxpullback.contract.errors import CaptureError
from fxpullback.graph.ir import aten
from fxpullback.graph.shapes import is_free, places

_ZEROS, _BORDER, _REFLECTION = range(3)
_LINEAR, _NEAREST, _CUBIC = range(3)
_A = -0.75  # of torch's cubic kernel

Taps = list[tuple[Any, Any]]


def grid_sampler(recorder: Any, x: Any, grid: Any, mode: int, padding: int, align: bool) -> Any:
    """`F.grid_sample` of pictures or volumes: x `[batch, channels, *sizes]`, grid `[batch, *out, axes]` in [-1, 1].

    The last coordinate of the grid is that of the first axis.
    """
    sizes, out, batch = x.shape[2:], grid.shape[1:-1], x.shape[0]
    rows = []
    for axis, size in enumerate(sizes):
        told = aten.select.int(grid, -1, len(sizes) - 1 - axis).reshape(batch, math.prod(out))
        place = (told + 1) / 2 * (size - 1) if align else ((told + 1) * size - 1) / 2
        rows.append(_rows(_taps(place, size, mode, padding, align), size))
    return _read(x, rows).reshape(batch, x.shape[1], *out)


def affine_grid(recorder: Any, theta: Any, size: list[Any], align: bool) -> Any:
    """`F.affine_grid`: places of a picture or volume of a size, mapped by theta `[batch, axes, axes + 1]`."""
    if any(is_free(n) for n in size[2:]):
        raise CaptureError("affine_grid of a free size: compile the model for one size, without free_size.")
    axes = [_evenly(int(n), align) for n in size[2:]]
    held = [*reversed(torch.meshgrid(*axes, indexing="ij")), torch.ones([len(a) for a in axes], dtype=torch.float64)]
    base = theta.exact_constant(torch.stack([h.flatten() for h in held], 1))
    return torch.matmul(base, theta.transpose(1, 2)).reshape(theta.shape[0], *size[2:], len(axes))


def _evenly(size: int, align: bool) -> Any:
    """Places of an axis in [-1, 1], from border to border or in the middle of each pixel."""
    if size == 1:
        return torch.zeros(1, dtype=torch.float64)
    line = torch.linspace(-1, 1, size, dtype=torch.float64)
    return line if align else line * (size - 1) / size


def deform_conv2d(
    recorder: Any, x: Any, weight: Any, offset: Any, mask: Any, bias: Any, stride_h: int, stride_w: int, pad_h: int,
    pad_w: int, dilation_h: int, dilation_w: int, groups: int, offset_groups: int, use_mask: bool,
) -> Any:  # fmt: skip
    """`torchvision.ops.deform_conv2d`: the windows of a convolution, each place moved by an offset of its own."""
    (batch, channels, *sizes), (kernels, *_, height, width), out = x.shape, weight.shape, offset.shape[2:]
    lead, window = (batch, offset_groups), height * width
    moved = offset.reshape(*lead, window, 2, *out)
    rows = []
    for axis, (extent, stride, pad, dilation) in enumerate(
        ((height, stride_h, pad_h, dilation_h), (width, stride_w, pad_w, dilation_w))
    ):
        inside = (places(extent, x) * dilation - pad).repeat_interleave(window // extent if axis == 0 else 1)
        inside = inside.repeat(1 if axis == 0 else window // extent).reshape(window, 1, 1)
        steps = (places(out[axis], x) * stride).reshape(*((-1, 1) if axis == 0 else (1, -1)))
        place = aten.select.int(moved, 3, axis) + (inside + steps).to(x.dtype)
        place = place.reshape(*lead, window * math.prod(out))
        rows.append(_rows(_taps(place, sizes[axis], _LINEAR, _ZEROS, True), sizes[axis]))
    read = _read(x.reshape(*lead, channels // offset_groups, *sizes), rows)
    if use_mask:
        read = read * mask.reshape(*lead, 1, window * math.prod(out))
    read = read.reshape(batch, groups, channels // groups * window, math.prod(out))
    made = torch.matmul(weight.reshape(groups, kernels // groups, channels // groups * window), read)
    return made.reshape(batch, kernels, *out) + bias.reshape(kernels, 1, 1)


def _taps(place: Any, size: Any, mode: int, padding: int, align: bool) -> Taps:
    """The places that are read for one coordinate, and the weight of each; `None` is one."""
    if mode != _CUBIC:
        place = _inside(place, size, padding, align)
    if mode == _NEAREST:
        return [(torch.round(place), None)]
    first = torch.floor(place)
    part = place - first
    if mode == _LINEAR:
        return [(first, 1 - part), (first + 1, part)]
    weights = [_far(part + 1), _near(part), _near(1 - part), _far(2 - part)]
    return [(_inside(first + i, size, padding, align), weight) for i, weight in enumerate(weights, -1)]


def _near(t: Any) -> Any:
    return ((_A + 2) * t - (_A + 3)) * t * t + 1


def _far(t: Any) -> Any:
    return ((t * _A - 5 * _A) * t + 8 * _A) * t - 4 * _A


def _inside(place: Any, size: Any, padding: int, align: bool) -> Any:
    """A place moved into the picture; with zeros around it, it stays where it is."""
    if padding == _ZEROS:
        return place
    if padding == _REFLECTION:
        place = _reflected(place, size, align)
    return torch.where(place <= 0, 0.0, torch.where(place >= size - 1, 1.0 * (size - 1), place))


def _reflected(place: Any, size: Any, align: bool) -> Any:
    """A place reflected at the borders: at the middle of the outer pixels, or at their edge."""
    low, span = (0.0, size - 1) if align else (-0.5, size)
    if span == 0:
        return place * 0.0
    away = place - low
    away = torch.where(away < 0, -away, away)
    turns = torch.floor(away / span)
    rest = away - turns * span
    even = turns == torch.floor(turns / 2) * 2
    return torch.where(even, rest, span - rest) + low


def _rows(taps: Taps, size: Any) -> Any:
    """Weights of all places of an axis, `[*, size, count]`, for the places `[*, count]` that are read."""
    rows: Any = None
    for place, weight in taps:
        here = place.unsqueeze(-2) == places(size, place).to(place.dtype).unsqueeze(-1)
        row = here.to(place.dtype) if weight is None else torch.where(here, weight.unsqueeze(-2), 0.0)
        rows = row if rows is None else rows + row
    return rows


def _read(x: Any, rows: list[Any]) -> Any:
    """x `[*, channels, *sizes]` read with the weights `[*, size, count]` of every axis: `[*, channels, count]`.

    One axis after the other, or all in one product where its weights are smaller than what is between.
    """
    lead, count = list(rows[0].shape[:-2]), rows[0].shape[-1]
    channels, *sizes = x.shape[len(lead) :]
    if is_free(sizes[-1]) or channels < sizes[-1]:
        before = [channels, *sizes[:-1]]
        made = torch.matmul(x.reshape(*lead, math.prod(before), sizes[-1]), rows[-1]).reshape(*lead, *before, count)
        for axis in range(len(sizes) - 2, -1, -1):
            made = (made * rows[axis].reshape(*lead, *[1] * (axis + 1), sizes[axis], count)).sum([-2])
        return made
    weights = rows[0]
    for axis in range(1, len(sizes)):
        weights = weights.unsqueeze(-2) * rows[axis].unsqueeze(-3)
        weights = weights.reshape(*lead, math.prod(sizes[: axis + 1]), count)
    return torch.matmul(x.reshape(*lead, channels, math.prod(sizes)), weights)
