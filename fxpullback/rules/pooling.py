"""Rules for max-pooling: the arg-max becomes a softmax over the window."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fxpullback.contract.errors import FixedSizeError
from fxpullback.graph.ir import aten, each_axis, stop_gradient
from fxpullback.graph.shapes import is_free
from fxpullback.rules.rule import gate
from fxpullback.rules.windows import pooled_size, soft_maximum_of_taps

NOWHERE = -1e30  # selectors in the padding; finite, because zero times this has to be zero
MOST_TAPS = 9  # a larger window is split: one axis, then the other


@dataclass(frozen=True)
class Windows:
    """The windows of a pooling over two axes; every field holds one number for each."""

    kernel: list[int]
    stride: list[int]
    before: list[int]
    behind: list[int]
    dilation: list[int]

    def along(self, axis: int) -> Windows:
        """The same windows along one axis (0 or 1); along the other one, each is a single place."""
        none = Windows([1, 1], [1, 1], [0, 0], [0, 0], [1, 1])
        fields = [(getattr(self, f.name), getattr(none, f.name)) for f in dataclasses.fields(self)]
        return Windows(*([own[i] if i == axis else rest[i] for i in (0, 1)] for own, rest in fields))

    def columns(self, x: Tensor, fill: float) -> Tensor:
        """The entries of every window of x, `[batch, channels, taps, windows]`; the padding holds `fill`."""
        inside = self.before if fill == 0 and self.before == self.behind else [0, 0]
        sides = [self.before[1], self.behind[1], self.before[0], self.behind[0]]
        padded = torch.constant_pad_nd(x, sides, fill) if any(sides) and not any(inside) else x
        found: Tensor = aten.im2col.default(padded, self.kernel, self.dilation, inside, self.stride)
        return found.reshape([-1, x.shape[1], math.prod(self.kernel), found.shape[-1]])

    def counts(self, x: Tensor) -> list[int]:
        """How many windows there are along each axis."""
        dims = zip(x.shape[2:], self.kernel, self.stride, self.before, self.behind, self.dilation, strict=True)
        return [(n + p + q - d * (k - 1) - 1) // s + 1 for n, k, s, p, q, d in dims]


def soft_maximum(values: Tensor, selectors: Tensor, windows: Windows, temperature: float) -> tuple[Tensor, Tensor]:
    """The soft maximum of every window: sum_i values_i * sg[softmax_i(selectors_i / T)].

    Args:
        values: `[batch, channels, height, width]`.
        selectors: the same shape. A window's largest one is subtracted before the division by T, so no digit is lost.
        windows: the windows; padding takes no part.
        temperature: T.

    Returns:
        Two tensors `[batch, channels, windows down, windows across]`: the soft maximum, and
        T * log(sum_i exp(selectors_i / T)). A next stage takes the second for its selectors: a softmax over rows of
        softmaxes over columns is the softmax over both.
    """
    if math.prod(windows.kernel) > MOST_TAPS and min(windows.kernel) > 1:
        values, selectors = soft_maximum(values, selectors, windows.along(0), temperature)
        return soft_maximum(values, selectors, windows.along(1), temperature)
    shape = [-1, values.shape[1], *windows.counts(values)]
    chosen = windows.columns(selectors, NOWHERE)
    largest = torch.amax(chosen, [2], True)
    weights = torch.exp((chosen - largest) * (1 / temperature))
    total = weights.sum([2], keepdim=True)
    taken = windows.columns(values, 0.0) * stop_gradient(weights)
    soft = taken.sum([2], keepdim=True) * stop_gradient(torch.reciprocal(total))
    return soft.reshape(shape), (largest + torch.log(total) * temperature).reshape(shape)


def soft_tiles(x: Tensor, kernel: list[int], temperature: float) -> Tensor:
    """`soft_maximum` of windows that lie side by side: each value is in one window only, so no columns are needed.

    Args:
        x: `[batch, channels, height, width]`, values and selectors alike.
        kernel: size of the windows, height and width.
        temperature: T.

    Returns:
        `[batch, channels, windows down, windows across]`; a rest of x that fills no window is left out.
    """
    for axis, (size, k) in enumerate(zip(x.shape[2:], kernel, strict=True), start=2):
        if size % k:
            x = aten.slice.Tensor(x, axis, 0, size // k * k, 1)
    largest = aten.max_pool2d.default(x, kernel, kernel)
    below = x + aten.upsample_nearest2d.vec(-largest, None, [float(k) for k in kernel])
    weights = torch.exp(stop_gradient(below) * (1 / temperature))
    taken = aten.avg_pool2d.default(x * stop_gradient(weights), kernel, kernel)
    mean: Tensor = taken * stop_gradient(torch.reciprocal(aten.avg_pool2d.default(weights, kernel, kernel)))
    return mean


def soft_pool(
    x: Tensor, kernel: list[int], stride: list[int] | None, padding: Any, dilation: Any, ceil: bool, temperature: float
) -> Tensor:
    """The soft expression of a max-pool over one, two or three axes.

    Args:
        x: `[batch, channels, *sizes]`, values and selectors alike.
        kernel: window sizes; `stride`, `padding`, `dilation` and `ceil` as in torch's max-pools.
        temperature: T.

    Returns:
        `[batch, channels, *pooled sizes]`. Three axes are taken in two stages: the first axis, then the other two.
    """
    n = x.ndim - 2
    each = [each_axis(v, n) for v in (kernel, stride or kernel, padding, dilation)]
    if any(map(is_free, x.shape[2:])):  # columns need known sizes
        return soft_maximum_of_taps(x, each[0], each[1], each[2], each[3], ceil, temperature)
    dims = list(zip(x.shape[2:], *each, strict=True))
    if n == 2 and each[0] == each[1] and not any(each[2]) and each[3] == [1, 1] and not ceil:
        return soft_tiles(x, each[0], temperature)
    fields = (each[0], each[1], each[2], [_behind(*d, ceil=ceil) for d in dims], each[3])
    after = [pooled_size(*d, ceil=ceil) for d in dims]
    values, selectors = x, x
    if n == 2:
        return soft_maximum(values, selectors, Windows(*fields), temperature)[0]
    lead = [-1, x.shape[1]]
    first = Windows(*([f[0], rest] for f, rest in zip(fields, (1, 1, 0, 0, 1), strict=True)))
    flat = [*lead, x.shape[2], 1 if n == 1 else x.shape[3] * x.shape[4]]
    values, selectors = soft_maximum(values.reshape(flat), selectors.reshape(flat), first, temperature)
    if n == 3:
        slices = [-1, x.shape[1] * after[0], *x.shape[3:]]
        rest = Windows(*(f[1:] for f in fields))
        values, _ = soft_maximum(values.reshape(slices), selectors.reshape(slices), rest, temperature)
    return values.reshape([*lead, *after])


def _behind(size: int, kernel: int, stride: int, padding: int, dilation: int, *, ceil: bool) -> int:
    """Padding behind the input along one axis; with `ceil`, as much as the last window needs."""
    count = pooled_size(size, kernel, stride, padding, dilation, ceil=ceil)
    needed = (count - 1) * stride + dilation * (kernel - 1) + 1 - size - padding
    return max(needed, 0) if ceil else padding


@gate(aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default, temperature=0.3, spread=0.5)
def max_pool(
    x: Tensor,
    kernel: list[int],
    stride: list[int] | None = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
    *,
    temperature: float,
) -> Tensor:
    """Max-pool: a softmax over the window, in which padding takes no part.

    Primal:  max_i x_i over the window
    Adjoint: ct * softmax_i(x / T)
    Limit:   T -> 0 gives the arg-max
    """
    return soft_pool(x, kernel, stride, padding, dilation, ceil, temperature)


@gate(aten.max_pool2d.default, temperature=0.3, spread=0.5, known_as="max_pool")
def max_pool_zero_padding(
    x: Tensor,
    kernel: list[int],
    stride: list[int] | None = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
    *,
    temperature: float,
) -> Tensor:
    """Max-pool as in the authors' code: padding takes part in the softmax with value 0.

    Primal:  max_i x_i over the window
    Adjoint: ct * softmax_i(x / T); the padding's share is lost
    Limit:   T -> 0 gives the arg-max where the largest value is positive
    """
    each = [each_axis(v, 2) for v in (kernel, stride or kernel, padding, dilation)]
    behind = [_behind(*dims, ceil=ceil) for dims in zip(x.shape[2:], *each, strict=True)]
    sides = [each[2][1], behind[1], each[2][0], behind[0]]
    padded = torch.constant_pad_nd(x, sides, 0.0) if any(sides) else x
    return soft_pool(padded, each[0], each[1], 0, each[3], False, temperature)


@gate(
    aten.adaptive_max_pool1d.default,
    aten.adaptive_max_pool2d.default,
    aten.adaptive_max_pool3d.default,
    temperature=0.3,
    spread=0.5,
)
def adaptive_max_pool(x: Tensor, size: list[int], *, temperature: float) -> Tensor:
    """Adaptive max-pool: a softmax over each cell.

    Primal:  max_i x_i over each cell
    Adjoint: ct * softmax_i(x / T)
    Limit:   T -> 0 gives the arg-max
    """
    sizes, wanted = list(x.shape[2:]), each_axis(size, x.ndim - 2)
    if all(want == 1 for want in wanted):
        return amax.soft(x, list(range(2, x.ndim)), True, temperature=temperature)
    if any(map(is_free, sizes)):
        raise FixedSizeError(f"to {wanted} cells has windows that depend on the size")
    if all(have % want == 0 for have, want in zip(sizes, wanted, strict=True)):
        cells = [have // want for have, want in zip(sizes, wanted, strict=True)]
        return max_pool.soft(x, cells, cells, temperature=temperature)
    return _cell_by_cell(x, 2, wanted, temperature)


def _cell_by_cell(x: Tensor, axis: int, wanted: list[int], temperature: float) -> Tensor:
    """The soft maximum of each cell; the cells are cut out along `axis` first, then along the axes behind it."""
    if not wanted:
        return amax.soft(x, list(range(2, x.ndim)), True, temperature=temperature)
    slabs = [aten.slice.Tensor(x, axis, *ends) for ends in _cells(x.shape[axis], wanted[0])]
    return torch.cat([_cell_by_cell(slab, axis + 1, wanted[1:], temperature) for slab in slabs], axis)


def _cells(size: int, wanted: int) -> list[tuple[int, int]]:
    """Begin and end of every cell along one axis; neighbours overlap where the sizes do not divide."""
    return [(i * size // wanted, -(-(i + 1) * size // wanted)) for i in range(wanted)]


@gate(aten.amax.default, temperature=0.3, spread=0.5)
def amax(x: Tensor, dim: list[int], keepdim: bool = False, *, temperature: float) -> Tensor:
    """The largest value along dimensions, such as a global max-pool.

    Primal:  max_i x_i
    Adjoint: ct * softmax_i(x / T) over the reduced dimensions
    Limit:   T -> 0 gives the arg-max
    """
    dims = list(dim) or list(range(x.ndim))
    weights = torch.exp((x - torch.amax(x, dims, True)) * (1 / temperature))
    share = weights * torch.reciprocal(weights.sum(dims, True))
    return (x * stop_gradient(share)).sum(dims, keepdim)


@gate(aten.maximum.default, temperature=0.3, spread=0.5)
def maximum(a: Tensor, b: Tensor, *, temperature: float) -> Tensor:
    """The larger of two values, such as maxout: a softmax over the two.

    Primal:  max(a, b)
    Adjoint: ct * sigma((a - b) / T) to a, ct * sigma((b - a) / T) to b
    Limit:   T -> 0 gives the arg-max
    """
    share = torch.sigmoid((a - b) * (1 / temperature))
    return a * stop_gradient(share) + b * stop_gradient(1 - share)


POOLING = (max_pool, adaptive_max_pool, amax, maximum)
