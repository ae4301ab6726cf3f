"""Operators that are written out in basic ones, for which every stage has what it needs.

What stands for them computes the same up to rounding, and has the derivative that torch gives them, at ties and at zero
too. One function for each, from the recorder and all arguments of the operator's schema to what stands for the call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from fxpullback.graph import distances, regions, running, sampling, scattered
from fxpullback.graph.ir import aten


def lerp(recorder: Any, start: Any, end: Any, weight: Any) -> Any:
    """From `start` to `end` by a weight."""
    return start + (end - start) * weight


def logaddexp(recorder: Any, a: Any, b: Any) -> Any:
    """The logarithm of a sum of two exponentials, which selects nothing, as `logsumexp`."""
    shape = list(torch.broadcast_shapes(a.shape, b.shape))
    return torch.logsumexp(torch.stack([aten.expand.default(v, shape) for v in (a, b)], -1), [-1])


def logaddexp2(recorder: Any, a: Any, b: Any) -> Any:
    """The same to base 2."""
    return logaddexp(recorder, a * math.log(2), b * math.log(2)) * (1 / math.log(2))


def xlog1py(recorder: Any, x: Any, y: Any) -> Any:
    """`x log(1 + y)`, zero where x is."""
    return torch.where(x == 0, x * 0.0, x * torch.log1p(y))


def times(factor: float) -> Callable[..., Any]:
    """A product with one number."""
    return lambda recorder, x: x * factor


def joined(recorder: Any, tensors: Any, dim: int = 0) -> Any:
    """A concatenation without the tensors of shape `[0]` that torch leaves out whatever the others' rank is."""
    kept = [tensor for tensor in tensors if not is_nothing(tensor)]
    return kept[0] if len(kept) == 1 else recorder.call(aten.cat.default, (kept, dim), {})


def is_nothing(tensor: Any) -> bool:
    """Whether a tensor is one of shape `[0]`."""
    return tensor.ndim == 1 and isinstance(tensor.shape[0], int) and tensor.shape[0] == 0


def round_decimals(recorder: Any, x: Any, decimals: int) -> Any:
    """Rounded to decimals, in front of the point where they are negative."""
    power = 10.0 ** abs(decimals)
    return torch.round(x * power) / power if decimals >= 0 else torch.round(x / power) * power


def copysign(recorder: Any, x: Any, other: Any) -> Any:
    """The size of one with the sign of another, a number or a tensor; the sign of a zero counts."""
    if isinstance(other, int | float):
        return torch.abs(x) * math.copysign(1.0, other)
    negative = (other < 0) | ((other == 0) & (torch.reciprocal(other) < 0))
    return torch.abs(x) * torch.where(negative, -1.0, 1.0).to(x.dtype)


def floor_divide(recorder: Any, a: Any, b: Any) -> Any:
    """A quotient rounded down: the older name of `div` with a rounding mode."""
    return recorder.call(aten.div.Tensor_mode, (a, b), {"rounding_mode": "floor"})


def heaviside(recorder: Any, x: Any, at_zero: Any) -> Any:
    """1 above zero, 0 below, and at zero what is given."""
    return torch.where(x == 0, at_zero, (x > 0).to(x.dtype))


def fmax(recorder: Any, a: Any, b: Any) -> Any:
    """The larger one, the first where the second is no number; at a tie both take part."""
    return torch.where(a == b, (a + b) * 0.5, torch.where((a > b) | (b != b), a, b))


def fmin(recorder: Any, a: Any, b: Any) -> Any:
    """The smaller one, the first where the second is no number; at a tie both take part."""
    return torch.where(a == b, (a + b) * 0.5, torch.where((a < b) | (b != b), a, b))


def cross(recorder: Any, a: Any, b: Any, dim: int = -1) -> Any:
    """The cross product: along an axis of three, products of its neighbours."""

    def turned(x: Any, steps: int) -> Any:
        return torch.cat([aten.select.int(x, dim, (i + steps) % 3).unsqueeze(dim % x.ndim) for i in range(3)], dim)

    return turned(a, 1) * turned(b, 2) - turned(a, 2) * turned(b, 1)


COMPOUNDS: dict[Any, Callable[..., Any]] = {
    aten.norm.Scalar: distances.norm,
    aten.norm.ScalarOpt_dim: distances.norm,
    aten.norm.ScalarOpt_dim_dtype: distances.norm,
    aten.cdist.default: distances.composed,
    aten._cdist_forward.default: distances.forward,
    aten._euclidean_dist.default: distances.euclidean,
    aten.cummax.default: running.cummax,
    aten.cummin.default: running.cummin,
    aten.logcumsumexp.default: running.logcumsumexp,
    aten.aminmax.default: running.extremes,
    aten.kthvalue.default: running.kthvalue,
    aten.median.dim: running.median,
    aten.mode.default: running.mode,
    aten.lerp.Scalar: lerp,
    aten.lerp.Tensor: lerp,
    aten.logaddexp.default: logaddexp,
    aten.logaddexp2.default: logaddexp2,
    aten.special_xlog1py.default: xlog1py,
    aten.deg2rad.default: times(math.pi / 180),
    aten.rad2deg.default: times(180 / math.pi),
    aten.round.decimals: round_decimals,
    aten.copysign.Tensor: copysign,
    aten.copysign.Scalar: copysign,
    aten.floor_divide.default: floor_divide,
    aten.floor_divide.Scalar: floor_divide,
    aten.heaviside.default: heaviside,
    aten.fmax.default: fmax,
    aten.fmin.default: fmin,
    aten.linalg_cross.default: cross,
    aten.index_add.default: scattered.index_add,
    aten.index_copy.default: scattered.index_copy,
    aten.index_fill.int_Scalar: scattered.index_fill,
    aten.diagonal.default: scattered.diagonal,
    aten.nansum.default: scattered.nansum,
    aten.ldexp.Tensor: scattered.ldexp,
    aten.bucketize.Tensor: scattered.bucketize,
    aten.searchsorted.Tensor: scattered.searchsorted,
    aten.grid_sampler.default: sampling.grid_sampler,
    aten.grid_sampler_2d.default: sampling.grid_sampler,
    aten.grid_sampler_3d.default: sampling.grid_sampler,
    aten.affine_grid_generator.default: sampling.affine_grid,
}
"""Always written out."""


def of_torchvision(target: Any) -> Callable[..., Any] | None:
    """What stands for an operator of torchvision, which need not be installed; None for any other operator."""
    if getattr(target, "namespace", "") != "torchvision":
        return None
    if target is torch.ops.torchvision.deform_conv2d.default:
        return sampling.deform_conv2d
    return regions.roi_align if target is torch.ops.torchvision.roi_align.default else None
