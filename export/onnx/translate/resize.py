"""Up- and downsampling, and sampling along a grid.

ONNX's Resize has many modes, and runtimes differ in them. So only a repetition by a whole factor is a Resize; all else
is a Gather or a product with a matrix that torch itself computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.pooling import along
from fxpullback.export.onnx.translate.values import Value, rank, sizes, whole_ratio
from fxpullback.graph.resampling import in_blocks, resampling_matrix

aten = torch.ops.aten


def _measure(b: Builder, x: Value, n: int) -> tuple[list[int], list[int]]:
    before = [b.fixed(size, "resizing") for size in sizes(x)[-n:]]
    return before, [b.fixed(size, "resizing") for size in b.out_sizes[-n:]]


def nearest(n: int, exact: bool = False) -> Translator:
    """Resize where each value is repeated by a whole factor; otherwise one Gather for each axis, at constant places.

    The places come from torch itself, whose rounding no mode of Resize promises to share.
    """

    mode = "nearest-exact" if exact else "nearest"

    def translate(b: Builder, x: Value, size: object, *scales: Any) -> Value:
        total, factors = rank(x), _factors(scales, n)
        whole = [whole_ratio(m, length) for m, length in zip(b.out_sizes[-n:], sizes(x)[-n:], strict=True)]
        if not exact and all(map(in_blocks, sizes(x)[-n:], whole, factors)):
            ratio = b.const([1.0] * (total - n) + whole, ir.DataType.FLOAT)
            modes: dict[str, Any] = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            return b.op("Resize", x, None, ratio, mode="nearest", **modes)
        before, after = _measure(b, x, n)
        for axis in range(n):
            matrix = resampling_matrix(before[axis], after[axis], mode, scale=factors[axis], axes=n)
            x = b.gather(x, matrix.argmax(1).numpy(), total - n + axis)
        return x

    return translate


def _factors(scales: Sequence[Any], n: int) -> list[float | None]:
    """The scale factors given, however the overload spells them."""
    if len(scales) == 1 and (scales[0] is None or isinstance(scales[0], (list, tuple))):
        return [None] * n if scales[0] is None else [float(scale) for scale in scales[0]]
    return [None if scale is None else float(scale) for scale in scales]


def interpolated(n: int, resample: Callable[..., torch.Tensor]) -> Translator:
    """MatMul with one constant matrix for each axis: linear or cubic interpolation, with or without antialiasing.

    The matrices are what torch does to the unit vectors, so coefficients, edges and rounding are torch's own.
    """

    def translate(b: Builder, x: Value, size: object, align: bool, *scales: Any) -> Value:
        before, after = _measure(b, x, n)
        total = rank(x)
        factors = _factors(scales, n)
        for axis in range(n):
            matrix = resample(before[axis], after[axis], bool(align), factors[axis])
            x = along(b, x, total - n + axis, matrix.numpy().T, total)
        return x

    return translate


def _linear(length: int, out: int, align: bool, scale: float | None) -> torch.Tensor:
    eye = torch.eye(length, dtype=torch.float64)[:, None]
    return aten.upsample_linear1d.default(eye, [out], align, scale)[:, 0]  # type: ignore[no-any-return]


def _plane(operator: OpOverload) -> Callable[[int, int, bool, float | None], torch.Tensor]:
    def resample(length: int, out: int, align: bool, scale: float | None) -> torch.Tensor:
        eye = torch.eye(length, dtype=torch.float64)[:, None, None]
        return operator(eye, [1, out], align, None, scale)[:, 0, 0]  # type: ignore[no-any-return]

    return resample


_cubic = _plane(aten.upsample_bicubic2d.default)
_linear_antialiased = _plane(aten._upsample_bilinear2d_aa.default)
_cubic_antialiased = _plane(aten._upsample_bicubic2d_aa.default)

TABLE: dict[OpOverload, Translator] = {
    aten.upsample_nearest1d.default: nearest(1),
    aten.upsample_nearest1d.vec: nearest(1),
    aten.upsample_nearest2d.default: nearest(2),
    aten.upsample_nearest2d.vec: nearest(2),
    aten.upsample_nearest3d.default: nearest(3),
    aten.upsample_nearest3d.vec: nearest(3),
    aten._upsample_nearest_exact1d.default: nearest(1, exact=True),
    aten._upsample_nearest_exact1d.vec: nearest(1, exact=True),
    aten._upsample_nearest_exact2d.default: nearest(2, exact=True),
    aten._upsample_nearest_exact2d.vec: nearest(2, exact=True),
    aten._upsample_nearest_exact3d.default: nearest(3, exact=True),
    aten._upsample_nearest_exact3d.vec: nearest(3, exact=True),
    aten.upsample_linear1d.default: interpolated(1, _linear),
    aten.upsample_linear1d.vec: interpolated(1, _linear),
    aten.upsample_bilinear2d.vec: interpolated(2, _linear),
    aten.upsample_trilinear3d.default: interpolated(3, _linear),
    aten.upsample_trilinear3d.vec: interpolated(3, _linear),
    aten.upsample_bicubic2d.vec: interpolated(2, _cubic),
    aten._upsample_bilinear2d_aa.default: interpolated(2, _linear_antialiased),
    aten._upsample_bilinear2d_aa.vec: interpolated(2, _linear_antialiased),
    aten._upsample_bicubic2d_aa.default: interpolated(2, _cubic_antialiased),
    aten._upsample_bicubic2d_aa.vec: interpolated(2, _cubic_antialiased),
}
