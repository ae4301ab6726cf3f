"""VJP rules of pooling.

`ct` is the cotangent of the output; y, in the code `out`, is the primal output. A rule returns one cotangent for each
tensor argument, ct_x for x. `fxpullback.vjp.rule` explains this and the values ZERO, ABSENT and NOT_DIFFERENTIABLE.

Where windows overlap, what they give to one place is added.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from fxpullback.contract.errors import FixedSizeError
from fxpullback.graph.ir import aten, constant_like, each_axis
from fxpullback.graph.shapes import is_free, over, places, plain
from fxpullback.rules.windows import pooled_size, taps
from fxpullback.vjp.rule import vjp
from fxpullback.vjp.shape import pad_axis, spread


@vjp(aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default, kind="nonlinear")
def max_pool(
    ct: Tensor,
    out: Tensor,
    x: Tensor,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> tuple[Any]:
    """y = max of x over each window:  ct_x = ct at the first place in the window with x = y, summed over windows.

    "First" is in row-major order: at a tie this place takes all of ct, as in torch. Padding takes no part.
    """
    n = x.ndim - 2
    shape = (each_axis(kernel, n), each_axis(stride or kernel, n), each_axis(padding, n), each_axis(dilation, n))
    values = taps(x, *shape, ceil=ceil, fill=float("-inf"))
    taken: Any = None
    contributions = []
    for value in values:
        here = value == out
        free = here if taken is None else here & ~taken
        taken = here if taken is None else taken | here
        contributions.append(torch.where(free, ct, 0.0))
    return (untap(contributions, x, *shape),)


def untap(
    contributions: list[Tensor],
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """Adjoint of `taps`: what each position of the windows carries, added where it was read.

    Args:
        contributions: prod(kernel) tensors `[batch, channels, *pooled sizes]`, one for each position in the window.
        x: the pooled tensor `[batch, channels, *sizes]`; its sizes are needed, not its values.
        kernel: window sizes; `stride`, `padding` and `dilation` as in torch's max-pools, one number for each axis.

    Returns:
        `[batch, channels, *sizes]`.
    """
    total: Any = None
    for offsets, part in zip(itertools.product(*[range(k) for k in kernel]), contributions, strict=True):
        for i, (o, d, s, p) in enumerate(zip(offsets, dilation, stride, padding, strict=True)):
            axis = 2 + i
            wide = spread(part, axis, s) if s > 1 else part
            begin = o * d - p
            if is_free(x.shape[axis]):
                part = pad_axis(wide, axis, begin, x.shape[axis] - begin - wide.shape[axis])
                continue
            end = x.shape[axis] - begin - wide.shape[axis]
            low, high = max(-begin, 0), wide.shape[axis] - max(-end, 0)
            if low or high != wide.shape[axis]:
                wide = aten.slice.Tensor(wide, axis, low, high, 1)
            part = pad_axis(wide, axis, max(begin, 0), max(end, 0))
        total = part if total is None else total + part
    return total  # type: ignore[no-any-return]


@vjp(aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default,
     kind="nonlinear")  # fmt: skip
def adaptive_max_pool(ct: tuple[Any, ...], out: tuple[Any, ...], x: Tensor, size: Any) -> tuple[Any]:
    """y[0] = max of x over each cell, y[1] = its place:  ct_x[j] = sum of ct[0] over the cells with y[1] = j.

    Places are numbered over all positions together. At a tie it is the place that torch picked.
    """
    positions = 1
    for extent in x.shape[2:]:
        positions = positions * extent
    numbers = places(positions, x)
    rows = (out[1].reshape([*x.shape[:2], -1]).unsqueeze(-1) == numbers).to(ct[0].dtype)
    carried = torch.matmul(ct[0].reshape([*x.shape[:2], -1]).unsqueeze(-2), rows)
    return (carried.reshape(x.shape),)


@vjp(aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default, kind="linear")
def avg_pool(
    ct: Tensor,
    out: Tensor,
    x: Tensor,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> tuple[Any]:
    """y = share * sum of x over each window:  ct_x = sum of share * ct over the windows that hold the place.

    The share is 1 / divisor, or else 1 / number of places in the window; padding counts if count_include_pad is true.
    If windows lie side by side and cover x, share * ct is repeated; else it goes through a transposed convolution.
    """
    n, channels = x.ndim - 2, x.shape[1]
    kernel, stride, padding = each_axis(kernel, n), each_axis(stride or kernel, n), each_axis(padding, n)
    share = _shares(x, kernel, stride, padding, ceil, count_include_pad, divisor)
    shared = ct * share
    sizes = zip(x.shape[2:], ct.shape[2:], kernel, stride, padding, strict=True)
    left = [size - ((m - 1) * s - 2 * p + k) for size, m, k, s, p in sizes]
    if kernel == stride and not any(padding) and all(plain_zero(extra) for extra in left):
        return (_REPEAT[n](shared, None, [float(k) for k in kernel]),)
    ones = torch.ones([channels, 1, *kernel], dtype=x.dtype, device=x.device)
    free = [i for i, extra in enumerate(left) if is_free(extra)]
    if free:  # take the largest output padding there is, then cut to the size of x
        left = [stride[i] - 1 if i in free else extra for i, extra in enumerate(left)]
    cut = [i for i, extra in enumerate(left) if i in free or extra < 0]
    shares = _transposed(shared, ones, stride, padding, [max(plain(extra), 0) for extra in left], channels)
    for i in cut:
        shares = aten.slice.Tensor(shares, 2 + i, 0, x.shape[2 + i], 1)
    return (shares,)


_REPEAT = {1: aten.upsample_nearest1d.vec, 2: aten.upsample_nearest2d.vec, 3: aten.upsample_nearest3d.vec}


def plain_zero(extra: Any) -> bool:
    """Whether a left-over number of places is known to be zero; a free one is not known."""
    return not is_free(extra) and plain(extra) == 0


def _shares(
    x: Tensor, kernel: list[int], stride: list[int], padding: list[int], ceil: bool, include_pad: bool, divisor: Any
) -> Any:
    """The factor on the sum over each window, as in torch: one number, or a tensor that broadcasts to the pooled sizes.

    Raises:
        FixedSizeError: `ceil` and `include_pad` with padding, at a free size.
    """
    sizes = list(x.shape[2:])
    alike = not ceil and (include_pad or not any(padding))
    if divisor is None and any(map(is_free, sizes)):
        if alike:
            return 1 / math.prod(kernel)
        if ceil and include_pad and any(padding):
            raise FixedSizeError("with ceil_mode, padding and count_include_pad divides by what depends on the size")
        return torch.reciprocal(_members(torch.ones_like(x[:1, :1]), kernel, stride, padding, ceil))
    counts = window_counts(sizes, kernel, stride, padding, ceil, include_pad, divisor)
    return constant_like(torch.reciprocal(counts), x) if counts.numel() > 1 else 1 / float(counts)


def _members(ones: Any, kernel: list[int], stride: list[int], padding: list[int], ceil: bool) -> Any:
    """The number of places of the input in each window, from a pooling of ones."""
    if len(kernel) == 3:
        return aten.avg_pool3d.default(ones, kernel, stride, padding, ceil, True, 1)
    if len(kernel) == 2:
        return aten.avg_pool2d.default(ones, kernel, stride, padding, ceil, True, 1)
    return _members(ones.unsqueeze(2), [1, *kernel], [1, *stride], [0, *padding], ceil).squeeze(2)


def _transposed(ct: Any, weight: Any, stride: Any, padding: Any, left: list[int], channels: int) -> Any:
    """Transposed depthwise convolution. What an axis lacks beyond the output padding, it gets as zeros."""
    n = len(stride)
    inside = [min(extra, s - 1) for extra, s in zip(left, stride, strict=True)]
    out = aten.convolution.default(ct, weight, None, stride, padding, [1] * n, True, inside, channels)
    sides = [side for e, i in zip(reversed(left), reversed(inside), strict=True) for side in (0, e - i)]
    return torch.constant_pad_nd(out, sides, 0.0) if any(sides) else out


def window_counts(
    sizes: list[int],
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    ceil: bool,
    include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """By how much torch divides the sum over each window.

    Args:
        sizes: sizes of the input behind the channels, all fixed.
        kernel: window sizes; `stride`, `padding` and `ceil` as in torch's average pools, one number for each axis.
        include_pad: whether padding counts.
        divisor: a number to be used instead, or None.

    Returns:
        `[*pooled sizes]`, or `[]` if all windows agree; float64.
    """
    if divisor is not None:
        return torch.tensor(float(divisor), dtype=torch.float64)
    whole = torch.ones([], dtype=torch.float64)
    for size, k, s, p in zip(sizes, kernel, stride, padding, strict=True):
        starts = torch.arange(pooled_size(size, k, s, p, 1, ceil=ceil)) * s - p
        ends = (starts + k).clamp(max=size + p)
        inside = ends - starts if include_pad else ends.clamp(max=size) - starts.clamp(min=0)
        whole = whole.unsqueeze(-1) * inside.to(whole.dtype)
    return whole.reshape(-1)[0] if bool((whole == whole.reshape(-1)[0]).all()) else whole


@vjp(aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default,
     kind="linear")  # fmt: skip
def adaptive_avg_pool(ct: Tensor, out: Tensor, x: Tensor, size: list[int]) -> tuple[Any]:
    """y = m x along each axis, m = averaging_matrix:  ct_x = m^T ct along each axis.

    With one cell, ct_x = ct / number of places, repeated: sizes may be free. With more cells a free size is refused.
    """
    wanted = each_axis(size, x.ndim - 2)
    if all(want == 1 for want in wanted):
        count: Any = 1
        for have in x.shape[2:]:
            count = count * have
        return (over(ct, count).expand(x.shape),)
    for i, want in enumerate(wanted):
        axis = 2 + i
        if is_free(x.shape[axis]):
            raise FixedSizeError(f"to {want} cells has windows that depend on the size")
        matrix = constant_like(averaging_matrix(x.shape[axis], want), x)
        ct = torch.matmul(ct.transpose(axis, -1), matrix).transpose(axis, -1)
    return (ct,)


def averaging_matrix(size: int, cells: int) -> Tensor:
    """The linear map of adaptive average pooling along one axis, with the cells that torch takes.

    Args:
        size: size of the axis before.
        cells: size of the axis after.

    Returns:
        `[cells, size]`, float64: row i averages the members of cell i.
    """
    rows = torch.zeros(cells, size, dtype=torch.float64)
    for i in range(cells):
        start, stop = i * size // cells, -(-(i + 1) * size // cells)
        rows[i, start:stop] = 1 / (stop - start)
    return rows


RULES = (max_pool, adaptive_max_pool, avg_pool, adaptive_avg_pool)
