"""Resizing, axis by axis, as a product with a constant matrix of weights; the common cases by torch's own operators."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.numbers import Array, same
from fxpullback.importer.site import Node, fixed


def resize(node: Node, x: Any, *rest: Any) -> Any:
    """Other sizes by nearest, linear or cubic interpolation."""
    values = [x, *rest]
    if node.opset < 11:
        scales, sizes, roi = node.numbers(1, values), None, None
    else:
        roi, scales, sizes = (node.numbers(i, values) for i in (1, 2, 3))
    axes = [a % x.ndim for a in node.get("axes") or range(x.ndim)]
    if sizes:
        wanted = dict(zip(axes, sizes, strict=True))
        by = {a: n / x.shape[a] if isinstance(x.shape[a], int) else None for a, n in wanted.items()}
        by, wanted = _kept(node, x, by, wanted)
    else:
        assert scales is not None
        by = dict(zip(axes, scales, strict=True))
        wanted = {a: math.floor(x.shape[a] * s) if s != 1 else x.shape[a] for a, s in by.items()}
    limits = dict(zip(axes, zip(roi[: len(axes)], roi[len(axes) :], strict=True), strict=True)) if roi else {}
    moved = [a for a in by if by[a] not in (None, 1) or not same(wanted[a], x.shape[a])]
    if (made := _by_torch(node, x, moved, by, wanted)) is not None:
        return made
    for axis in moved:
        if not isinstance(x.shape[axis], int):
            raise CaptureError("it resizes an axis whose size is free, in a way that torch has no operator for")
        size = x.shape[axis]
        matrix = _matrix(node, x.shape[axis], int(wanted[axis]), by[axis], limits.get(axis))
        weights = torch.from_numpy(matrix).to(x.dtype)
        x = F.linear(x.movedim(axis, -1), weights).movedim(-1, axis)
        if node.text("coordinate_transformation_mode", "") == "tf_crop_and_resize":
            x = _outside(node, x, axis, size, by[axis], limits.get(axis))
    return x


def upsample(node: Node, x: Any, *rest: Any) -> Any:
    """Larger sizes by nearest or linear interpolation, as old versions have it."""
    scales = list(node.get("scales")) if node.opset < 9 else node.numbers(1, [x, *rest])
    attributes = {
        "mode": node.get("mode", b"nearest"),
        "coordinate_transformation_mode": b"asymmetric",
        "nearest_mode": b"floor",
    }
    old = Node(
        node.name, "Resize", "", 10, attributes, (None, np.array(scales, np.float32)), node.shapes, batch=node.batch
    )
    return resize(old, x, None)


def _kept(node: Node, x: Tensor, by: dict[int, Any], wanted: dict[int, Any]) -> tuple[dict[int, Any], dict[int, Any]]:
    policy = node.text("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return by, wanted
    scale = min(by.values()) if policy == "not_larger" else max(by.values())
    return dict.fromkeys(by, scale), {a: math.floor(scale * x.shape[a] + 0.5) for a in by}


def _by_torch(node: Node, x: Tensor, axes: list[int], by: dict[int, Any], wanted: dict[int, Any]) -> Tensor | None:
    """By `F.interpolate`, where that means the same."""
    mode, where = node.text("mode", "nearest"), node.text("coordinate_transformation_mode", "half_pixel")
    where = "asymmetric" if node.opset < 11 and "coordinate_transformation_mode" not in node.attributes else where
    plain = not node.get("antialias", 0) and not node.get("exclude_outside", 0)
    if not axes or not plain or x.ndim not in (3, 4, 5) or min(axes) < 2:
        return x if not axes else None
    places = range(2, x.ndim)
    if any(a not in axes and x.ndim > 4 for a in places):
        return None
    sizes = [wanted.get(a, x.shape[a]) for a in places]
    grown = all(isinstance(by.get(a, 1), int | float) and by.get(a, 1) == int(by.get(a, 1)) for a in places)
    nearest = node.text("nearest_mode", "round_prefer_floor")
    nearest = "floor" if node.opset < 11 else nearest
    if mode == "nearest" and grown and (where, nearest) in _SAME_AS_FLOOR:
        if not fixed(x):
            return F.interpolate(x, scale_factor=[float(by.get(a, 1)) for a in places], mode="nearest")
        return F.interpolate(x, sizes, mode="nearest")
    if mode == "nearest" and fixed(x) and (where, nearest) == ("asymmetric", "floor") and _follows(x, by, wanted):
        return F.interpolate(x, sizes, mode="nearest")
    names = {("linear", 3): "linear", ("linear", 4): "bilinear", ("linear", 5): "trilinear", ("cubic", 4): "bicubic"}
    if (mode, x.ndim) not in names or where not in ("half_pixel", "align_corners", "pytorch_half_pixel"):
        return None
    if mode == "cubic" and node.get("cubic_coeff_a", -0.75) != -0.75:
        return None
    if where == "align_corners":
        return (
            F.interpolate(x, sizes, mode=names[mode, x.ndim], align_corners=True) if _follows(x, by, wanted) else None
        )
    if any(isinstance(n, int) and n == 1 for n in sizes) or not (_follows(x, by, wanted) or grown):
        return None
    if not fixed(x) and not all(isinstance(n, int) for n in x.shape[2:]):
        return F.interpolate(x, scale_factor=[float(by.get(a, 1)) for a in places], mode=names[mode, x.ndim])
    return F.interpolate(x, sizes, mode=names[mode, x.ndim], align_corners=False)


_SAME_AS_FLOOR = {
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
    ("pytorch_half_pixel", "round_prefer_floor"),
    ("half_pixel_symmetric", "round_prefer_floor"),
}
"""Whole factors of growth: each entry is repeated, whichever way places are computed and rounded."""


def _follows(x: Tensor, by: dict[int, Any], wanted: dict[int, Any]) -> bool:
    """Whether the factor of each axis is that of its sizes."""
    return all(
        isinstance(x.shape[a], int) and isinstance(wanted[a], int) and abs(s - wanted[a] / x.shape[a]) < 1e-6 * s
        for a, s in by.items()
    )


def _matrix(node: Node, size: int, count: int, scale: Any, roi: tuple[float, float] | None) -> Array:
    """Weights `[count, size]`: which entries each new one is made of."""
    mode = node.text("mode", "nearest")
    matrix = np.zeros((count, size))
    for i in range(count):
        place = _place(node, i, size, count, float(scale), roi)
        if mode == "nearest":
            matrix[i, min(max(_nearest(node, place), 0), size - 1)] = 1
            continue
        taps = _taps(node, mode, place, float(scale))
        if node.get("exclude_outside", 0):
            taps = {p: w for p, w in taps.items() if 0 <= p < size}
            total = sum(taps.values())
            taps = {p: w / total for p, w in taps.items()}
        for p, w in taps.items():
            matrix[i, min(max(p, 0), size - 1)] += w
    return matrix


def _place(node: Node, i: int, size: int, count: int, scale: float, roi: tuple[float, float] | None) -> float:
    where = node.text("coordinate_transformation_mode", "asymmetric" if node.opset < 11 else "half_pixel")
    if where == "half_pixel":
        return (i + 0.5) / scale - 0.5
    if where == "half_pixel_symmetric":
        whole = size * scale
        return size / 2 * (1 - count / whole) + (i + 0.5) / scale - 0.5
    if where == "pytorch_half_pixel":
        return (i + 0.5) / scale - 0.5 if count > 1 else -0.5
    if where == "align_corners":
        return i * (size - 1) / (size * scale - 1) if size * scale > 1 else 0.0
    if where == "asymmetric":
        return i / scale
    if where == "tf_half_pixel_for_nn":
        return (i + 0.5) / scale
    if where == "tf_crop_and_resize":
        assert roi is not None
        start, end = roi
        step = (end - start) * (size - 1) / (count - 1) if count > 1 else 0.0
        return start * (size - 1) + i * step if count > 1 else 0.5 * (start + end) * (size - 1)
    raise CaptureError(f"its coordinate_transformation_mode {where} is not known")


def _nearest(node: Node, place: float) -> int:
    kind = "floor" if node.opset < 11 else node.text("nearest_mode", "round_prefer_floor")
    if kind == "floor":
        return math.floor(place)
    if kind == "ceil":
        return math.ceil(place)
    return math.ceil(place - 0.5) if kind == "round_prefer_floor" else math.floor(place + 0.5)


def _taps(node: Node, mode: str, place: float, scale: float) -> dict[int, float]:
    """The places that an entry is made of, and their weights."""
    start, stretch = math.floor(place), min(scale, 1.0) if node.get("antialias", 0) else 1.0
    reach = (1 if mode == "linear" else 2) / stretch
    a = node.get("cubic_coeff_a", -0.75)
    first, last = math.floor(place - reach) + 1, math.ceil(place + reach) - 1
    weights = {}
    for p in range(min(first, start), max(last, start + 1) + 1):
        distance = abs(place - p) * stretch
        weights[p] = max(0.0, 1 - distance) if mode == "linear" else _cubic(distance, a)
    total = sum(weights.values())
    return {p: w / total for p, w in weights.items() if w}


def _cubic(d: float, a: float) -> float:
    if d < 1:
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a if d < 2 else 0.0


def _outside(node: Node, x: Tensor, axis: int, size: int, scale: Any, roi: tuple[float, float] | None) -> Tensor:
    """Entries whose place lies outside of the input hold one value."""
    count = x.shape[axis]
    places = [_place(node, i, size, count, float(scale), roi) for i in range(count)]
    inside = torch.tensor([0 <= place <= size - 1 for place in places])
    shape = [-1 if i == axis else 1 for i in range(x.ndim)]
    return torch.where(inside.reshape(shape), x, float(node.get("extrapolation_value", 0.0)))
