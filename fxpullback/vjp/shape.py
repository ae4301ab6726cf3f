"""VJP rules of operators that only move or copy values.

`ct` is the cotangent of the output; y, in the code `out`, is the primal output. A rule returns one cotangent for each
tensor argument, ct_x for x. `fxpullback.vjp.rule` explains this and the values ZERO, ABSENT and NOT_DIFFERENTIABLE.

x[start:end] stands for a slice along dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fxpullback.graph.ir import aten
from fxpullback.graph.shapes import is_free, plain
from fxpullback.vjp.rule import ABSENT, ZERO, vjp


@vjp(aten.reshape.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default,
     kind="linear")  # fmt: skip
def reshape(ct: Tensor, out: Tensor, x: Tensor, *sizes: Any) -> tuple[Any]:
    """y = x in another shape:  ct_x = ct in the shape of x."""
    return (ct.reshape(x.shape),)


@vjp(aten.permute.default, kind="linear")
def permute(ct: Tensor, out: Tensor, x: Tensor, dims: list[int]) -> tuple[Any]:
    """y = x.permute(dims):  ct_x = ct.permute(inverse of dims)."""
    inverse = [0] * len(dims)
    for to, source in enumerate(dims):
        inverse[source] = to
    return (ct.permute(inverse),)


@vjp(aten.transpose.int, kind="linear")
def transpose(ct: Tensor, out: Tensor, x: Tensor, first: int, second: int) -> tuple[Any]:
    """y = x with two axes swapped:  ct_x = ct with the same two axes swapped."""
    return (ct.transpose(first, second),)


@vjp(aten.expand.default, kind="linear")
def expand(ct: Tensor, out: Tensor, x: Tensor, sizes: list[int], implicit: bool = False) -> tuple[Any]:
    """y = x repeated along axes of size one or new axes:  ct_x = ct; the reverse walk sums it to the shape of x."""
    return (ct,)


@vjp(aten.cat.default, kind="linear")
def cat(ct: Tensor, out: Tensor, tensors: list[Tensor], dim: int = 0) -> tuple[Any]:
    """y = the tensors side by side along dim:  ct_tensors[i] = ct[start:stop], where tensor i stands in y."""
    parts, start = [], 0
    for tensor in tensors:
        stop = start + tensor.shape[dim]
        parts.append(_slicer(ct, dim, start, stop))
        start = stop
    return (parts,)


def _slicer(ct: Tensor, dim: int, start: int, stop: int) -> Any:
    """A function that takes ct[start:stop] along `dim`."""
    return lambda: aten.slice.Tensor(ct, dim, start, stop, 1)


@vjp(aten.stack.default, kind="linear")
def stack(ct: Tensor, out: Tensor, tensors: list[Tensor], dim: int = 0) -> tuple[Any]:
    """y = the tensors along a new axis dim:  ct_tensors[i] = ct at place i of dim."""
    return ([_selector(ct, dim, i) for i in range(len(tensors))],)


def _selector(ct: Tensor, dim: int, index: int) -> Any:
    """A function that takes ct at place `index` of `dim`."""
    return lambda: aten.select.int(ct, dim, index)


def pad_axis(ct: Tensor, dim: int, before: Any, after: Any) -> Tensor:
    """Put zeros before and after along one axis.

    Args:
        ct: any tensor.
        dim: the axis, counted from either end.
        before: number of zeros in front; a negative number cuts values off. A free size may turn out to be negative.
        after: the same for the end.

    Returns:
        `ct` with before + after more values along the axis.
    """
    before, after = plain(before), plain(after)
    if not is_free(before) and not is_free(after) and not before and not after:
        return ct
    axis = dim % ct.ndim
    return torch.constant_pad_nd(ct, [0, 0] * (ct.ndim - 1 - axis) + [before, after], 0.0)


def _joined(cts: tuple[Any, ...], sizes: list[int], dim: int) -> Tensor:
    """Cotangents of consecutive parts of the given sizes, side by side along `dim`; zeros where one is ABSENT."""
    start = 0
    runs: list[tuple[int, list[Tensor], int]] = []
    for ct, size in zip(cts, sizes, strict=True):
        if ct is not ABSENT:
            if runs and runs[-1][2] == start:
                begin, parts, _ = runs.pop()
                runs.append((begin, [*parts, ct], start + size))
            else:
                runs.append((start, [ct], start + size))
        start += size
    whole = [pad_axis(_one(parts, dim), dim, begin, start - end) for begin, parts, end in runs]
    return sum(whole[1:], whole[0])


def _one(parts: list[Tensor], dim: int) -> Tensor:
    """The parts as one tensor."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


@vjp(aten.split.Tensor, aten.split_with_sizes.default, kind="linear")
def split(ct: tuple[Any, ...], out: tuple[Any, ...], x: Tensor, sizes: Any, dim: int = 0) -> tuple[Any]:
    """y[i] = consecutive parts of x along dim:  ct_x = all ct[i] side by side, zeros where one is ABSENT."""
    return (_joined(ct, [o.shape[dim] for o in out], dim),)


@vjp(aten.unbind.int, kind="linear")
def unbind(ct: tuple[Any, ...], out: tuple[Any, ...], x: Tensor, dim: int = 0) -> tuple[Any]:
    """y[i] = x at place i of dim:  ct_x = all ct[i] stacked along dim, zeros where one is ABSENT."""
    axis = dim % x.ndim
    lifted = tuple(c if c is ABSENT else c.unsqueeze(axis) for c in ct)
    return (_joined(lifted, [1] * len(ct), axis),)


@vjp(aten.select.int, kind="linear")
def select(ct: Tensor, out: Tensor, x: Tensor, dim: int, index: int) -> tuple[Any]:
    """y = x at place index of dim:  ct_x = zeros with ct at that place."""
    axis = dim % x.ndim
    at = index + x.shape[axis] if index < 0 else index
    return (pad_axis(ct.unsqueeze(axis), axis, at, x.shape[axis] - at - 1),)


@vjp(aten.slice.Tensor, kind="linear")
def slice_(
    ct: Tensor, out: Tensor, x: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> tuple[Any]:
    """y = x[start:end:step]:  ct_x = zeros with ct at [start:end:step]."""
    axis, size = dim % x.ndim, x.shape[dim]
    begin = 0 if start is None else max(start + size if start < 0 else start, 0)
    if step > 1:
        ct = spread(ct, axis, step)
    return (pad_axis(ct, axis, begin, size - begin - ct.shape[axis]),)


@vjp(aten.slice_scatter.default, kind="linear")
def slice_scatter(
    ct: Tensor,
    out: Tensor,
    x: Tensor,
    source: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> tuple[Any, Any]:
    """y = x with source at [start:end:step]:  ct_x = ct with zeros at [start:end:step], ct_source = ct[start:end:step].

    A mask of one axis makes the zeros, slice_scatter itself where the size is free. If source fills the whole axis:
    ct_x = ZERO, ct_source = ct.
    """
    axis, size = dim % x.ndim, x.shape[dim]
    if source.ndim == x.ndim and str(source.shape[axis]) == str(size):  # source fills the axis, such as the batch
        return ZERO, ct
    if not isinstance(size, int):  # free
        nothing = torch.zeros_like(aten.slice.Tensor(ct, axis, start, end, step))
        left = (axis, start, end, step)
        return lambda: aten.slice_scatter.default(ct, nothing, *left), lambda: aten.slice.Tensor(ct, *left)
    written = torch.zeros(size, dtype=torch.bool)
    written[slice(start, end, step)] = True
    mask = written.to(x.device).reshape([-1] + [1] * (x.ndim - 1 - axis))
    return lambda: torch.where(mask, 0.0, ct), lambda: aten.slice.Tensor(ct, axis, start, end, step)


def spread(ct: Tensor, axis: int, step: int) -> Tensor:
    """Put step - 1 zeros between neighbours along one axis.

    Args:
        ct: any tensor, n values along `axis`.
        axis: the axis, counted from the front.
        step: distance between neighbours afterwards, at least 1.

    Returns:
        A tensor of (n - 1) * step + 1 values along `axis`.
    """
    count = ct.shape[axis]
    wide = pad_axis(ct.unsqueeze(axis + 1), axis + 1, 0, step - 1)
    flat = wide.reshape([*ct.shape[:axis], count * step, *ct.shape[axis + 1 :]])
    return aten.slice.Tensor(flat, axis, 0, (count - 1) * step + 1, 1)  # type: ignore[no-any-return]


@vjp(aten.flip.default, kind="linear")
def flip(ct: Tensor, out: Tensor, x: Tensor, dims: list[int]) -> tuple[Any]:
    """y = x reversed along dims:  ct_x = ct reversed along dims."""
    return (torch.flip(ct, dims),)


@vjp(aten.roll.default, kind="linear")
def roll(ct: Tensor, out: Tensor, x: Tensor, shifts: list[int], dims: list[int] | None = None) -> tuple[Any]:
    """y = x rolled by shifts along dims:  ct_x = ct rolled by -shifts along dims."""
    return (torch.roll(ct, [-s for s in shifts], list(dims or [])),)


@vjp(aten.repeat.default, kind="linear")
def repeat(ct: Tensor, out: Tensor, x: Tensor, times: list[int]) -> tuple[Any]:
    """y = x repeated `times` along each axis:  ct_x = sum of ct over the copies."""
    extra = len(times) - x.ndim
    sizes: list[int] = []
    for n, size in zip(times, [1] * extra + list(x.shape), strict=True):
        sizes += [n, size]
    return (ct.reshape(sizes).sum(list(range(0, len(sizes), 2))).reshape(x.shape),)


@vjp(aten.repeat_interleave.self_int, kind="linear")
def repeat_interleave(
    ct: Tensor, out: Tensor, x: Tensor, times: int, dim: int | None = None, output_size: int | None = None
) -> tuple[Any]:
    """y = each value of x `times` in a row along dim:  ct_x = sum of ct over each run of `times`.

    With dim None, x counts as flat.
    """
    if dim is None:
        return (ct.reshape([-1, times]).sum([1]).reshape(x.shape),)
    axis = dim % x.ndim
    return (ct.reshape([*x.shape[: axis + 1], times, *x.shape[axis + 1 :]]).sum([axis + 1]),)


@vjp(aten.pixel_shuffle.default, kind="linear")
def pixel_shuffle(ct: Tensor, out: Tensor, x: Tensor, factor: int) -> tuple[Any]:
    """y = pixel_shuffle(x, factor):  ct_x = pixel_unshuffle(ct, factor), its inverse."""
    return (torch.pixel_unshuffle(ct, factor),)


@vjp(aten.pixel_unshuffle.default, kind="linear")
def pixel_unshuffle(ct: Tensor, out: Tensor, x: Tensor, factor: int) -> tuple[Any]:
    """y = pixel_unshuffle(x, factor):  ct_x = pixel_shuffle(ct, factor), its inverse."""
    return (torch.pixel_shuffle(ct, factor),)


@vjp(aten.channel_shuffle.default, kind="linear")
def channel_shuffle(ct: Tensor, out: Tensor, x: Tensor, groups: int) -> tuple[Any]:
    """y = channel_shuffle(x, groups):  ct_x = channel_shuffle(ct, channels / groups), its inverse."""
    return (torch.channel_shuffle(ct, x.shape[1] // groups),)


@vjp(aten.tril.default, kind="linear")
def tril(ct: Tensor, out: Tensor, x: Tensor, diagonal: int = 0) -> tuple[Any]:
    """y = x on and below the diagonal, else 0:  ct_x = ct on and below the same diagonal, else 0."""
    return (torch.tril(ct, diagonal),)


@vjp(aten.triu.default, kind="linear")
def triu(ct: Tensor, out: Tensor, x: Tensor, diagonal: int = 0) -> tuple[Any]:
    """y = x on and above the diagonal, else 0:  ct_x = ct on and above the same diagonal, else 0."""
    return (torch.triu(ct, diagonal),)


RULES = (
    reshape, permute, transpose, expand, cat, stack, split, unbind, select, slice_, slice_scatter,
    flip, roll, repeat, repeat_interleave, pixel_shuffle, pixel_unshuffle, channel_shuffle, tril, triu,
)  # fmt: skip
