"""Boxes cut out of pictures: `torchvision.ops.roi_align`, as products with weights of rows and columns.

As torchvision has it, boxes carry no derivative. How many places a cell is read at depends on the size of its box, so
there are weights for as many as a box within the picture has.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from fxpullback.contract.errors import CaptureError
from fxpullback.graph.ir import STOP_GRADIENT, aten
from fxpullback.graph.shapes import is_free, places


def roi_align(
    recorder: Any, x: Any, boxes: Any, scale: float, height: int, width: int, ratio: int, aligned: bool
) -> Any:
    """The mean of a picture in each cell of a box: `[count, channels, height, width]`.

    Args:
        recorder: unused; what stands for a call takes one.
        x: pictures, `[batch, channels, rows, columns]`.
        boxes: `[count, 5]`: the sample, left, top, right, bottom.
        scale: pixels of x for one unit of a box.
        height: rows of cells.
        width: columns of cells.
        ratio: places along each axis of a cell; none, or below, are one for each pixel.
        aligned: whether the middle of the first pixel is at 0.5.

    Raises:
        CaptureError: the picture has a free size.
    """
    batch, channels, *sizes = x.shape
    if any(is_free(size) for size in sizes):
        raise CaptureError("roi_align of a free size: compile the model for one size, without free_size.")
    boxes = STOP_GRADIENT(boxes)
    own = boxes.slice(1, 0, 1) == places(batch, x).to(boxes.dtype).unsqueeze(0)
    read = torch.matmul(own.to(x.dtype), x.reshape(batch, channels * math.prod(sizes)))
    read = read.reshape(boxes.shape[0], channels, *sizes)
    rows = []
    for axis, (size, cells) in enumerate(zip(sizes, (height, width), strict=True)):
        low, high = (aten.select.int(boxes, 1, i - axis) * scale - 0.5 * aligned for i in (2, 4))
        extent = high - low
        rows.append(_weights(low, extent if aligned else torch.clamp(extent, min=1.0), int(size), cells, ratio))
    across = torch.matmul(read, rows[1].unsqueeze(1))
    return torch.matmul(rows[0].unsqueeze(1).transpose(-2, -1), across)


def _weights(low: Any, extent: Any, size: int, cells: int, ratio: int) -> Any:
    """What each place of an axis counts in each cell of each box, `[count, size, cells]`."""
    most = ratio if ratio > 0 else math.ceil(size / cells) + 1
    number = torch.ceil(extent / cells) if ratio <= 0 else torch.full_like(extent, ratio)
    number = torch.clamp(number, min=0.0).reshape(-1, 1, 1)
    share = torch.where(number > most, math.nan, 1 / torch.clamp(number, min=1.0))  # a box beyond the picture
    cell, step = places(cells, low).to(low.dtype), places(most, low).to(low.dtype)
    step = torch.where(step < number, (step + 0.5) * share, -math.inf)
    place = low.reshape(-1, 1, 1) + (cell.reshape(1, -1, 1) + step) * (extent / cells).reshape(-1, 1, 1)
    within = (place >= -1) & (place <= size)
    place = torch.clamp(torch.where(within, place, 0.0), 0.0, size - 1.0)
    first = torch.floor(place)
    part = place - first
    at = places(size, low).to(low.dtype).reshape(1, -1, 1, 1)
    first, part = first.unsqueeze(1), part.unsqueeze(1)
    weight = torch.where(at == first, 1 - part, torch.where(at == first + 1, part, 0.0))
    return torch.where(within.unsqueeze(1), weight * share.unsqueeze(1), 0.0).sum([-1])
