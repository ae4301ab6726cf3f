"""How torch resamples one axis: its matrix, read off torch itself, and where nearest neighbours are whole blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fxpullback.graph.ir import aten


def resampling_matrix(
    size: int, wanted: int, mode: str, align: bool = False, scale: float | None = None, axes: int = 1
) -> Tensor:
    """The linear map of one axis: what torch's own resampling makes of unit vectors.

    The nearest modes are read off in float32, the type that models compute in. In float64 torch rounds places in
    another way at some sizes, such as 26 to 22, but only forward: its backward has float32's places in either type.

    Args:
        size: size of the axis before.
        wanted: size of the axis after.
        mode: as in `torch.nn.functional.interpolate`: "nearest", "nearest-exact", "linear" or "bicubic".
        align: `align_corners` there; the nearest modes ignore it.
        scale: the scale factor where one was given; it changes the weights. None: the sizes alone decide.
        axes: how many axes are resampled. Of two, "nearest" ignores a scale where the size stays or doubles.

    Returns:
        `[wanted, size]`, float64.
    """
    unit = torch.eye(size, dtype=torch.float32 if mode.startswith("nearest") else torch.float64)
    vectors, pictures = unit[None], unit[None, :, None]  # a picture of one row for each unit vector
    if mode == "bicubic":
        columns = aten.upsample_bicubic2d.default(pictures, [1, wanted], align, None, scale)
    elif mode == "linear":
        columns = aten.upsample_linear1d.default(vectors, [wanted], align, scale)
    elif mode == "nearest-exact":
        columns = aten._upsample_nearest_exact1d.default(vectors, [wanted], scale)
    elif axes == 2:
        columns = aten.upsample_nearest2d.default(pictures, [1, wanted], None, scale)
    else:
        columns = aten.upsample_nearest1d.default(vectors, [wanted], scale)
    return columns.reshape(size, wanted).T.double()  # type: ignore[no-any-return]


def in_blocks(size: Any, factor: int | None, scale: float | None) -> bool:
    """Whether mode "nearest" repeats each value of an axis `factor` times, one behind the other.

    Args:
        size: size of the axis before; it may be free.
        factor: by how much the axis grows, where that is a whole number; else 0 or None.
        scale: the scale factor where one was given. Another one than `factor` reads other values.

    Returns:
        False also for 41, 47, 55 and other factors from two values on. torch multiplies a place by 1 / factor, rounded
        to float32: place 41 reads value 0 there, and not 1. If any place is wrong, then the first of the second block
        is, so two values tell.
    """
    if not factor or scale not in (None, factor):
        return False
    few = min(size, 2) if isinstance(size, int) else 2
    read = resampling_matrix(few, few * factor, "nearest", scale=scale).argmax(1)
    return torch.equal(read, torch.arange(few).repeat_interleave(factor))
