"""Operators that move numbers, and those that compute shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.freed import expanded, joinable, reshaped
from fxpullback.importer.numbers import Known, known
from fxpullback.importer.site import DTYPES, Node, tensor


def shape(node: Node, x: Any) -> Known:
    """The sizes, from `start` to `end`."""
    sizes = list(x.array.shape if isinstance(x, Known) else x.shape)
    return known(sizes[node.get("start", 0) : node.get("end")])


def size(node: Node, x: Any) -> Known:
    """How many entries there are."""
    total: Any = 1
    for extent in x.array.shape if isinstance(x, Known) else x.shape:
        total = total * extent
    return Known(np.array(total, object if isinstance(total, torch.SymInt) else np.int64))


def reshape(node: Node, x: Any, *rest: Any) -> Any:
    """Other sizes; zero keeps one, -1 is what is left."""
    sizes = list(node.get("shape")) if node.opset < 5 else node.numbers(1, [x, *rest])
    assert sizes is not None
    if isinstance(x, Known):
        return Known(x.array.reshape([x.array.shape[i] if n == 0 else n for i, n in enumerate(sizes)]), x.floats)
    if not node.get("allowzero", 0):
        if sizes and isinstance(sizes[0], int) and sizes[0] == 0:  # the first axis stays, whatever it is
            return x.reshape([x.shape[i] if isinstance(n, int) and n == 0 else n for i, n in enumerate(sizes)])
        sizes = [x.shape[i] if isinstance(n, int) and n == 0 else n for i, n in enumerate(sizes)]
    return x.reshape(reshaped(node, x, sizes))


def flatten(node: Node, x: Any) -> Any:
    """Two axes: those in front of one, and the others."""
    axis = node.get("axis", 1)
    axis += x.ndim if axis < 0 else 0
    if axis == 0:
        return x.reshape(1, -1)
    return torch.flatten(x, 1) if axis == 1 else x.flatten(0, axis - 1).flatten(1)


def transpose(node: Node, x: Any) -> Any:
    """Axes in another order; by default turned round."""
    if isinstance(x, Known):
        return Known(x.array.transpose(node.get("perm")), x.floats)
    order = list(node.get("perm") or reversed(range(x.ndim)))
    return x.permute(order)


def _axes(node: Node, place: int, values: Sequence[Any], since: int = 13) -> list[int] | None:
    """Axes given as an attribute in old versions of an operator, as an input in new ones."""
    return node.get("axes") if node.opset < since else node.numbers(place, values)


def squeeze(node: Node, x: Any, *rest: Any) -> Any:
    """Without axes of one entry."""
    axes = _axes(node, 1, [x, *rest])
    if isinstance(x, Known):
        return Known(x.array.squeeze(None if axes is None else tuple(axes)), x.floats)
    if axes is None:
        axes = [i for i, n in enumerate(x.shape) if isinstance(n, int) and n == 1]
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = x.squeeze(axis)
    return x


def unsqueeze(node: Node, x: Any, *rest: Any) -> Any:
    """With axes of one entry."""
    axes = _axes(node, 1, [x, *rest]) or []
    if isinstance(x, Known):
        return Known(np.expand_dims(x.array, tuple(axes)), x.floats)
    rank = x.ndim + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


def concat(node: Node, *given: Any) -> Any:
    """One behind the other along an axis."""
    axis = node.get("axis", 1 if node.opset < 4 else 0)
    if all(isinstance(value, Known) for value in given):
        return Known(np.concatenate([value.array for value in given], axis), given[0].floats)
    parts = joinable(node, [tensor(value) for value in given], axis)
    kind = next((part.dtype for part in parts if part.is_floating_point()), parts[0].dtype)
    return torch.cat([part.to(kind) for part in parts], axis)


def split(node: Node, x: Any, *rest: Any) -> Any:
    """Pieces along an axis."""
    axis = node.get("axis", 0)
    sizes = node.get("split") if node.opset < 13 else node.numbers(1, [x, *rest])
    array = isinstance(x, Known)
    extent = x.array.shape[axis] if array else x.shape[axis]
    if sizes is None:
        count = node.get("num_outputs") or len(node.outputs)
        step = -(-extent // count)
        sizes = [step] * (count - 1) + [extent - step * (count - 1)]
    if array:
        ends = np.cumsum(sizes)[:-1]
        return tuple(Known(part, x.floats) for part in np.split(x.array, ends, axis))
    return tuple(torch.split(x, [int(n) if isinstance(n, int) else n for n in sizes], axis))


def slice_(node: Node, x: Any, *rest: Any) -> Any:
    """From a place to another along some axes, by steps that may go back."""
    values = [x, *rest]
    if node.opset < 10:
        starts, ends, axes, steps = node.get("starts"), node.get("ends"), node.get("axes"), None
    else:
        starts, ends, axes, steps = (node.numbers(i, values) for i in (1, 2, 3, 4))
    assert starts is not None
    assert ends is not None
    rank = x.array.ndim if isinstance(x, Known) else x.ndim
    axes = list(range(len(starts))) if axes is None else [a % rank for a in axes]
    steps = [1] * len(starts) if steps is None else steps
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if isinstance(x, Known):
            index = [slice(None)] * rank
            index[axis] = _numpy_slice(start, end, step, x.array.shape[axis])
            x = Known(x.array[tuple(index)], x.floats)
        else:
            x = _sliced(x, axis, start, end, step)
    return x


LONGEST = 1 << 29
"""Whoever slices to a place behind this means the end: exporters write 10^9, or the largest number of 32 or 64 bits."""


def _numpy_slice(start: int, end: int, step: int, extent: int) -> slice:
    return slice(start, None if step < 0 and end < -extent else end, step)


def _sliced(x: Tensor, axis: int, start: Any, end: Any, step: int) -> Tensor:
    extent = x.shape[axis]
    if isinstance(end, int) and end > LONGEST:
        end = extent if step > 0 else end
    if step > 0:
        if isinstance(start, int) and start == 0 and end is extent and step == 1:
            return x
        index = [slice(None)] * x.ndim
        index[axis] = slice(start, end, step)
        return x[tuple(index)]
    places = np.arange(extent)[_numpy_slice(start, end, step, extent)] if isinstance(extent, int) else None
    if places is None:
        raise CaptureError("it goes backwards along an axis whose size is free")
    return x.index_select(axis, torch.from_numpy(places.copy()))


def expand(node: Node, x: Any, sizes: Any) -> Any:
    """Repeated along axes of one entry."""
    wanted = node.numbers(1, [x, sizes])
    assert wanted is not None
    if isinstance(x, Known):
        return Known(np.broadcast_to(x.array, np.broadcast_shapes(x.array.shape, tuple(wanted))), x.floats)
    return expanded(node, x, wanted)


def tile(node: Node, x: Any, *rest: Any) -> Any:
    """Repeated along every axis."""
    repeats = node.numbers(1, [x, *rest])
    assert repeats is not None
    if isinstance(x, Known):
        return Known(np.tile(x.array, repeats), x.floats)
    return x.repeat(repeats)


def pad(node: Node, x: Any, *rest: Any) -> Any:
    """Entries before and behind each axis."""
    values = [x, *rest]
    pads = node.get("pads") if node.opset < 11 else node.numbers(1, values)
    value = node.get("value", 0.0) if node.opset < 11 else node.number(2, values, 0)
    axes = node.numbers(3, values) if node.opset >= 18 else None
    mode = node.text("mode", "constant")
    assert pads is not None
    if isinstance(x, Known):
        count = len(pads) // 2
        return Known(
            np.pad(x.array, list(zip(pads[:count], pads[count:], strict=True)), constant_values=value), x.floats
        )
    chosen = list(range(x.ndim)) if axes is None else [a % x.ndim for a in axes]
    sides: list[Any] = [0] * (2 * x.ndim)
    for i, axis in enumerate(chosen):
        at = 2 * (x.ndim - 1 - axis)
        sides[at], sides[at + 1] = pads[i], pads[i + len(chosen)]
    if mode == "constant":
        if x.dtype is torch.bool:
            return F.pad(x.to(torch.uint8), sides, value=int(value)).bool()
        return F.pad(x, sides, value=value)
    return _mirrored(x, sides, {"edge": "replicate", "reflect": "reflect", "wrap": "circular"}[mode])


def _mirrored(x: Tensor, sides: list[int], mode: str) -> Tensor:
    """Padding by the input's own entries, one axis after the other."""
    for axis in range(x.ndim):
        before, behind = sides[2 * (x.ndim - 1 - axis) : 2 * (x.ndim - axis)]
        if not before and not behind:
            continue
        if mode == "circular" and (before < 0 or behind < 0):
            raise CaptureError("it wraps and cuts at once")
        moved = x.movedim(axis, -1)
        lead = moved.shape[:-1]
        wide = F.pad(moved.reshape(1, -1, moved.shape[-1]), [before, behind], mode=mode)
        x = wide.reshape([*lead, wide.shape[-1]]).movedim(-1, axis)
    return x


def constant_of_shape(node: Node, sizes: Any) -> Any:
    """One value, of sizes that are computed."""
    wanted = node.numbers(0, [sizes]) or []
    value = node.get("value")
    entry = np.float32(0) if value is None else value.reshape(-1)[0]
    if all(isinstance(n, int) for n in wanted) and np.prod(wanted, dtype=np.int64) <= 4096:
        array = np.full(wanted, entry)
        if not np.issubdtype(array.dtype, np.floating):
            return Known(array)
        return torch.from_numpy(array)
    kind = torch.from_numpy(np.array(entry)).dtype
    return torch.full(wanted, entry.item(), dtype=kind)


def arange(node: Node, *given: Any) -> Any:
    """Numbers from a start to a limit by steps."""
    start, limit, step = (node.number(i, given) for i in range(3))
    if all(isinstance(n, int) for n in (start, limit, step)):
        return Known(np.arange(start, limit, step))
    return torch.arange(start, limit, step)


def trilu(node: Node, x: Any, *rest: Any) -> Any:
    """The upper or lower triangle."""
    k = node.number(1, [x, *rest], 0)
    x = tensor(x)
    return torch.triu(x, k) if node.get("upper", 1) else torch.tril(x, k)


def eye_like(node: Node, x: Any) -> Any:
    """Ones on a diagonal."""
    sizes = list(x.array.shape if isinstance(x, Known) else x.shape)
    kind = DTYPES[node.get("dtype")] if node.get("dtype") else tensor(x).dtype
    rows, columns = torch.arange(sizes[0])[:, None], torch.arange(sizes[1])[None]
    return (columns - rows == node.get("k", 0)).to(kind)


def depth_to_space(node: Node, x: Any) -> Any:
    """Blocks of channels as places."""
    n, c, h, w = x.shape
    b = node.get("blocksize")
    if node.text("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, b)
    split_ = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    return split_.reshape(n, c // (b * b), h * b, w * b)


def space_to_depth(node: Node, x: Any) -> Any:
    """Blocks of places as channels."""
    n, c, h, w = x.shape
    b = node.get("blocksize")
    crd = node.text("mode", "DCR") == "CRD"
    split_ = x.reshape(n, c, h // b, b, w // b, b).permute(*((0, 1, 3, 5, 2, 4) if crd else (0, 3, 5, 1, 2, 4)))
    return split_.reshape(n, c * b * b, h // b, w // b)


def running_sum(node: Node, x: Any, *rest: Any) -> Any:
    """Sums of what is before each entry along an axis."""
    axis = int(node.number(1, [x, *rest])) % x.ndim
    x = x.flip(axis) if node.get("reverse", 0) else x
    made = torch.cumsum(x, axis)
    made = made - x if node.get("exclusive", 0) else made
    return made.flip(axis) if node.get("reverse", 0) else made


def running_product(node: Node, x: Any, *rest: Any) -> Any:
    """Products of what is before each entry along an axis."""
    axis = int(node.number(1, [x, *rest])) % x.ndim
    x = x.flip(axis) if node.get("reverse", 0) else x
    made = torch.cumprod(x, axis)
    if node.get("exclusive", 0):
        first = torch.ones_like(made.narrow(axis, 0, 1))
        made = torch.cat([first, made.narrow(axis, 0, made.shape[axis] - 1)], axis)
    return made.flip(axis) if node.get("reverse", 0) else made


def constant(node: Node) -> Any:
    """Refused: constants are computed when a file is read."""
    raise CaptureError("its value could not be read")


def centred(node: Node, x: Any, sizes: Any) -> Any:
    """The middle of x along some axes, or x with zeros around it."""
    wanted = node.numbers(1, [x, sizes])
    assert wanted is not None
    axes = node.get("axes") or list(range(len(wanted)))
    for axis, size_ in zip((a % x.ndim for a in axes), wanted, strict=True):
        spare = x.shape[axis] - size_
        if spare > 0:
            x = x.narrow(axis, spare // 2, size_)
        elif spare < 0:
            before = -spare // 2
            x = F.pad(x, [*[0] * (2 * (x.ndim - 1 - axis)), before, -spare - before])
    return x


OPERATORS: dict[str, Callable[..., Any]] = {
    "Shape": shape,
    "Size": size,
    "Reshape": reshape,
    "Flatten": flatten,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Expand": expand,
    "Tile": tile,
    "Pad": pad,
    "ConstantOfShape": constant_of_shape,
    "Range": arange,
    "Trilu": trilu,
    "EyeLike": eye_like,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "CumSum": running_sum,
    "CumProd": running_product,
    "Constant": constant,
    "CenterCropPad": centred,
}
