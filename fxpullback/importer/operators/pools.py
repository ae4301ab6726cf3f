"""Pools and resizing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.operators.linear import pads_of, split_pads
from fxpullback.importer.operators.resize import resize, upsample
from fxpullback.importer.site import Node, tensor

MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _windows(node: Node, x: Tensor) -> tuple[list[int], list[int], list[int], list[int]]:
    kernel = list(node.get("kernel_shape"))
    stride = list(node.get("strides") or [1] * len(kernel))
    dilation = list(node.get("dilations") or [1] * len(kernel))
    return kernel, stride, dilation, pads_of(node, x.shape[2:], kernel, stride, dilation)


def _ceiled(
    node: Node, x: Tensor, kernel: list[int], stride: list[int], dilation: list[int], pads: list[int]
) -> list[int]:
    """More padding at the ends, where sizes are rounded up: a window may not begin in it."""
    if not node.get("ceil_mode", 0):
        return pads
    count, more = len(kernel), list(pads)
    for i, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True)):
        extent, reach = x.shape[2 + i], d * (k - 1) + 1
        if not isinstance(extent, int):
            raise CaptureError("ceil_mode rounds a size up, and that is free")
        total = extent + pads[i] + pads[count + i]
        out = -(-(total - reach) // s) + 1
        if (out - 1) * s >= extent + pads[i]:
            out -= 1
        more[count + i] += max(0, (out - 1) * s + reach - total)
    return more


def max_pool(node: Node, x: Any) -> Any:
    """The largest entry of each window."""
    if len(node.outputs) > 1 and node.outputs[1]:
        raise CaptureError("the places of the largest entries, its second output, are not supported")
    kernel, stride, dilation, pads = _windows(node, x)
    count = len(kernel)
    even = pads[:count] == pads[count:] and all(2 * p <= k for p, k in zip(pads, kernel, strict=False))
    if even:
        return MAX[count](x, kernel, stride, pads[:count], dilation, bool(node.get("ceil_mode", 0)))
    pads = _ceiled(node, x, kernel, stride, dilation, pads)
    return MAX[count](_padded(x, pads, float("-inf")), kernel, stride, 0, dilation)


def average_pool(node: Node, x: Any) -> Any:
    """The mean of each window, of its entries inside alone unless padding counts."""
    kernel, stride, dilation, pads = _windows(node, x)
    count, counted = len(kernel), bool(node.get("count_include_pad", 0))
    wide = _ceiled(node, x, kernel, stride, dilation, pads)
    ones = all(d == 1 for d in dilation)
    even = pads[:count] == pads[count:] and all(2 * p <= k for p, k in zip(pads, kernel, strict=False))
    if ones and wide == pads and even:
        return AVERAGE[count](x, kernel, stride, pads[:count], False, counted)
    summed = _window_sums(x, kernel, stride, dilation, wide)
    inside = torch.ones([1, 1, *x.shape[2:]], dtype=x.dtype)
    if counted:
        inside = _padded(inside, pads, 1.0)
        rest = [a - b for a, b in zip(wide, pads, strict=True)]
        return summed / _window_sums(inside, kernel, stride, dilation, rest)
    return summed / _window_sums(inside, kernel, stride, dilation, wide)


def _padded(x: Tensor, pads: list[int], value: float) -> Tensor:
    count = len(pads) // 2
    sides = [s for pair in zip(reversed(pads[:count]), reversed(pads[count:]), strict=True) for s in pair]
    return F.pad(x, sides, value=value)


def _window_sums(x: Tensor, kernel: list[int], stride: list[int], dilation: list[int], pads: list[int]) -> Tensor:
    """The sum of each window, as a convolution of every channel with ones."""
    from fxpullback.importer.operators.linear import CONVOLUTIONS

    wide, padding = split_pads(x, pads)
    flat = wide.reshape([-1, 1, *wide.shape[2:]])
    weight = torch.ones([1, 1, *kernel], dtype=x.dtype)
    made = CONVOLUTIONS[len(kernel)](flat, weight, None, stride, padding, dilation)
    return made.reshape([*x.shape[:2], *made.shape[2:]])


def lp_pool(node: Node, x: Any) -> Any:
    """The p-norm of each window."""
    kernel, stride, dilation, pads = _windows(node, x)
    pads = _ceiled(node, x, kernel, stride, dilation, pads)
    p = node.get("p", 2)
    return _window_sums(torch.abs(x) ** p, kernel, stride, dilation, pads) ** (1 / p)


def _spatial(x: Tensor) -> list[int]:
    return list(range(2, x.ndim))


def global_average(node: Node, x: Any) -> Any:
    """The mean over all places."""
    return x.mean(_spatial(x), keepdim=True)


def global_max(node: Node, x: Any) -> Any:
    """The largest over all places."""
    return torch.amax(x, _spatial(x), keepdim=True)


def global_lp(node: Node, x: Any) -> Any:
    """The p-norm over all places."""
    return torch.linalg.vector_norm(x, node.get("p", 2), _spatial(x), keepdim=True)


def grid_sample(node: Node, x: Any, grid: Any) -> Any:
    """Values at the places of a grid."""
    modes = {
        "linear": "bilinear",
        "bilinear": "bilinear",
        "nearest": "nearest",
        "cubic": "bicubic",
        "bicubic": "bicubic",
    }
    mode, padding = node.text("mode", "linear"), node.text("padding_mode", "zeros")
    return F.grid_sample(x, tensor(grid), modes[mode], padding, bool(node.get("align_corners", 0)))


def affine_grid(node: Node, theta: Any, size: Any) -> Any:
    """The grid of an affine map."""
    sizes = node.numbers(1, [theta, size])
    assert sizes is not None
    return F.affine_grid(tensor(theta), sizes, bool(node.get("align_corners", 0)))


def col2im(node: Node, x: Any, image: Any, block: Any) -> Any:
    """Columns added up as windows of a picture."""
    sides, kernel = node.numbers(1, [x, image, block]), node.numbers(2, [x, image, block])
    assert sides is not None
    assert kernel is not None
    pads = list(node.get("pads") or [0, 0, 0, 0])
    if len(kernel) != 2:
        raise CaptureError(f"windows of {len(kernel)} axes are none that torch has")
    top, left, bottom, right = pads
    stride, dilation = list(node.get("strides") or [1, 1]), list(node.get("dilations") or [1, 1])
    full = [sides[0] + top + bottom, sides[1] + left + right]
    made = torch.nn.Fold(_pair(full), _pair(kernel), _pair(dilation), 0, _pair(stride))(x)
    return made[:, :, top : top + sides[0], left : left + sides[1]]


def roi_align(node: Node, x: Any, boxes: Any, samples: Any) -> Any:
    """The mean over each part of each constant box."""
    from torchvision.ops import roi_align as aligned

    given, numbers = node.constant(1), node.constant(2)
    if given is None or numbers is None or node.text("mode", "avg") != "avg":
        raise CaptureError("boxes that are computed, or the largest of their entries, are not supported")
    half = node.text("coordinate_transformation_mode", "half_pixel" if node.opset >= 16 else "output_half_pixel")
    rows = np.concatenate([numbers.reshape(-1, 1), given], 1).astype(np.float32)
    sides = node.get("output_height", 1), node.get("output_width", 1)
    ratio = node.get("sampling_ratio", 0) or -1
    return aligned(
        x, torch.from_numpy(rows).to(x.dtype), sides, node.get("spatial_scale", 1.0), ratio, half == "half_pixel"
    )


def _pair(values: list[Any]) -> tuple[int, int]:
    first, second = values
    return first, second


def roi_pool(node: Node, x: Any, rois: Any) -> Any:
    """The largest entry of each part of each constant box."""
    boxes = node.constant(1)
    if boxes is None:
        raise CaptureError("boxes that are computed are not supported")
    height, width = node.get("pooled_shape")
    scale, made = node.get("spatial_scale", 1.0), []
    for box in boxes:
        left, top, right, bottom = (int(np.round(v * scale)) for v in box[1:])
        h, w = max(bottom - top + 1, 1), max(right - left + 1, 1)
        cells = []
        for i, j in itertools.product(range(height), range(width)):
            rows = slice(top + int(np.floor(i * h / height)), top + int(np.ceil((i + 1) * h / height)))
            columns = slice(left + int(np.floor(j * w / width)), left + int(np.ceil((j + 1) * w / width)))
            cells.append(torch.amax(x[int(box[0]), :, rows, columns], [1, 2]))
        made.append(torch.stack(cells, -1).reshape(-1, height, width))
    return torch.stack(made)


OPERATORS: dict[str, Callable[..., Any]] = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_max,
    "GlobalLpPool": global_lp,
    "Resize": resize,
    "Upsample": upsample,
    "GridSample": grid_sample,
    "AffineGrid": affine_grid,
    "Col2Im": col2im,
    "MaxRoiPool": roi_pool,
    "RoiAlign": roi_align,
}
