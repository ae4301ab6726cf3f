"""VJP rules of resampling: each axis is multiplied by a constant matrix m, and its adjoint multiplies by m^T.

`ct` is the cotangent of the output; y, in the code `out`, is the primal output. A rule returns one cotangent for each
tensor argument, ct_x for x. `fxpullback.vjp.rule` explains this and the values ZERO, ABSENT and NOT_DIFFERENTIABLE.

m is the `resampling_matrix` of one axis (`fxpullback.graph.resampling`); it needs a fixed size. Sizes and scales are
numbers, which take no cotangent.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fxpullback.contract.errors import FixedSizeError
from fxpullback.graph.ir import aten, constant_like
from fxpullback.graph.resampling import in_blocks, resampling_matrix
from fxpullback.graph.shapes import is_free, whole_ratio
from fxpullback.vjp.rule import vjp


def _adjoint(ct: Tensor, x: Tensor, mode: str, align: bool, scales: Any) -> Tensor:
    """m^T ct along each axis behind the channels.

    Args:
        ct: cotangent of the resampled x.
        x: what was resampled, `[batch, channels, *sizes]`.
        mode: as in `resampling_matrix`, and `align` too.
        align: see there.
        scales: the scale factor of each axis, None where none was given; or None.

    Raises:
        FixedSizeError: the size of an axis is free.
    """
    for axis in range(2, x.ndim):
        size, wanted = x.shape[axis], ct.shape[axis]
        if is_free(size) or is_free(wanted):
            raise FixedSizeError(f"in mode {mode} has weights that depend on the size")
        scale = None if not scales else scales[axis - 2]
        matrix = constant_like(resampling_matrix(size, wanted, mode, align, scale, x.ndim - 2), x)
        ct = torch.matmul(ct.transpose(axis, -1), matrix).transpose(axis, -1)
    return ct


@vjp(aten.upsample_nearest1d.vec, aten.upsample_nearest2d.vec, aten.upsample_nearest3d.vec, kind="linear")
def nearest(ct: Tensor, out: Tensor, x: Tensor, size: Any, scales: Any = None) -> tuple[Any]:
    """y[i] = x[nearest(i)]:  ct_x[j] = sum of ct[i] over all i with nearest(i) = j.

    If every axis grows by a whole factor, and its scale is that factor or was not given, this is a sum over blocks, and
    sizes may be free. Else it is m^T ct along each axis.
    """
    factors = [whole_ratio(m, n) for m, n in zip(ct.shape[2:], x.shape[2:], strict=True)]
    given = list(scales) if scales else [None] * len(factors)
    if not all(in_blocks(*axis) for axis in zip(x.shape[2:], factors, given, strict=True)):
        return (_adjoint(ct, x, "nearest", False, scales),)
    sizes = list(ct.shape[:2])
    for n, factor in zip(x.shape[2:], factors, strict=True):
        sizes += [n, factor]
    return (ct.reshape(sizes).sum(list(range(3, len(sizes), 2))),)


@vjp(aten.upsample_nearest1d.default, aten.upsample_nearest2d.default, aten.upsample_nearest3d.default, kind="linear")
def nearest_sized(ct: Tensor, out: Tensor, x: Tensor, size: Any, *scales: Any) -> tuple[Any]:
    """y[i] = x[nearest(i)]:  ct_x = as `nearest`; the spelling with a size."""
    result: tuple[Any] = nearest.function(ct, out, x, size, scales)
    return result


@vjp(aten._upsample_nearest_exact1d.vec, aten._upsample_nearest_exact2d.vec, aten._upsample_nearest_exact3d.vec,
     kind="linear")  # fmt: skip
def nearest_exact(ct: Tensor, out: Tensor, x: Tensor, size: Any, scales: Any = None) -> tuple[Any]:
    """y = m x along each axis, mode "nearest-exact":  ct_x = m^T ct along each axis."""
    return (_adjoint(ct, x, "nearest-exact", False, scales),)


@vjp(aten._upsample_nearest_exact1d.default, aten._upsample_nearest_exact2d.default,
     aten._upsample_nearest_exact3d.default, kind="linear")  # fmt: skip
def nearest_exact_sized(ct: Tensor, out: Tensor, x: Tensor, size: Any, *scales: Any) -> tuple[Any]:
    """y = m x along each axis, mode "nearest-exact":  ct_x = m^T ct along each axis; the spelling with a size."""
    return (_adjoint(ct, x, "nearest-exact", False, scales),)


@vjp(aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec, aten.upsample_trilinear3d.vec, kind="linear")
def linear(ct: Tensor, out: Tensor, x: Tensor, size: Any, align: bool, scales: Any = None) -> tuple[Any]:
    """y = m x along each axis, mode "linear":  ct_x = m^T ct along each axis."""
    return (_adjoint(ct, x, "linear", align, scales),)


@vjp(aten.upsample_linear1d.default, aten.upsample_bilinear2d.default, aten.upsample_trilinear3d.default,
     kind="linear")  # fmt: skip
def linear_sized(ct: Tensor, out: Tensor, x: Tensor, size: Any, align: bool, *scales: Any) -> tuple[Any]:
    """y = m x along each axis, mode "linear":  ct_x = m^T ct along each axis; the spelling with a size."""
    return (_adjoint(ct, x, "linear", align, scales),)


@vjp(aten.upsample_bicubic2d.vec, kind="linear")
def bicubic(ct: Tensor, out: Tensor, x: Tensor, size: Any, align: bool, scales: Any = None) -> tuple[Any]:
    """y = m x along each axis, mode "bicubic":  ct_x = m^T ct along each axis."""
    return (_adjoint(ct, x, "bicubic", align, scales),)


@vjp(aten.upsample_bicubic2d.default, kind="linear")
def bicubic_sized(ct: Tensor, out: Tensor, x: Tensor, size: Any, align: bool, *scales: Any) -> tuple[Any]:
    """y = m x along each axis, mode "bicubic":  ct_x = m^T ct along each axis; the spelling with a size."""
    return (_adjoint(ct, x, "bicubic", align, scales),)


RULES = (nearest, nearest_sized, nearest_exact, nearest_exact_sized, linear, linear_sized, bicubic, bicubic_sized)
