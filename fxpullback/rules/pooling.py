"""Rules for max-pooling: the arg-max becomes a softmax over the window."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from fxpullback.ir import aten, each_axis, stop_gradient
from fxpullback.rules.rule import gate


def taps(
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    *,
    ceil: bool,
    fill: float,
) -> list[Tensor]:
    """The windows of a pooling, as one strided slice of the padded input for each position in the window.

    Args:
        x: `[batch, channels, *sizes]`.
        kernel: window sizes; `stride`, `padding`, `dilation` and `ceil` as in torch's max-pools.
        fill: what the padding holds.

    Returns:
        prod(kernel) tensors `[batch, channels, *pooled sizes]`.
    """
    sizes = list(x.shape[2:])
    counts = [pooled_size(*dims, ceil=ceil) for dims in zip(sizes, kernel, stride, padding, dilation, strict=True)]
    needed = [(c - 1) * s + d * (k - 1) + 1 for c, s, d, k in zip(counts, stride, dilation, kernel, strict=True)]
    after = [max(n - p - size, 0) for n, p, size in zip(needed, padding, sizes, strict=True)]
    sides = [side for p, a in zip(reversed(padding), reversed(after), strict=True) for side in (p, a)]
    padded = torch.constant_pad_nd(x, sides, fill) if any(sides) else x
    windows = []
    for offsets in itertools.product(*[range(k) for k in kernel]):
        tap = padded
        for i, (o, d, s, c) in enumerate(zip(offsets, dilation, stride, counts, strict=True)):
            tap = aten.slice.Tensor(tap, 2 + i, o * d, o * d + (c - 1) * s + 1, s)
        windows.append(tap)
    return windows


def pooled_size(size: int, kernel: int, stride: int, padding: int, dilation: int, *, ceil: bool) -> int:
    """Number of windows along one axis, as torch counts them: none may start in the padding behind the input."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (-(-span // stride) if ceil else span // stride) + 1
    return count - 1 if ceil and (count - 1) * stride >= size + padding else count


def soft_maximum(values: list[Tensor], selectors: list[Tensor], temperature: float) -> Tensor:
    """sum_i values_i * sg[softmax_i(selectors_i / T)], the exponentials taken relative to the largest selector."""
    largest = selectors[0]
    for selector in selectors[1:]:
        largest = torch.maximum(largest, selector)
    weights = [torch.exp((selector - largest) * (1 / temperature)) for selector in selectors]
    share = torch.reciprocal(sum(weights[1:], weights[0]))
    terms = [v * stop_gradient(w) * stop_gradient(share) for v, w in zip(values, weights, strict=True)]
    return sum(terms[1:], terms[0])


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
    n = x.ndim - 2
    kernel = each_axis(kernel, n)
    shape = (kernel, each_axis(stride or kernel, n), each_axis(padding, n), each_axis(dilation, n))
    values = taps(x, *shape, ceil=ceil, fill=0.0)
    return soft_maximum(values, taps(x, *shape, ceil=ceil, fill=-math.inf), temperature)


@gate(aten.max_pool2d.default, temperature=0.3, spread=0.5)
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
    """Max-pool as the authors' code has it: padding takes part in the softmax with value 0.

    Primal:  max_i x_i over the window
    Adjoint: ct * softmax_i(x / T), the padding's share lost
    Limit:   T -> 0 gives the arg-max where the largest value is positive
    """
    shape = (each_axis(kernel, 2), each_axis(stride or kernel, 2), each_axis(padding, 2), each_axis(dilation, 2))
    values = taps(x, *shape, ceil=ceil, fill=0.0)
    return soft_maximum(values, values, temperature)


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
    if all(have % want == 0 for have, want in zip(sizes, wanted, strict=True)):
        cells = [have // want for have, want in zip(sizes, wanted, strict=True)]
        return max_pool.soft(x, cells, cells, temperature=temperature)
    return _cell_by_cell(x, 2, wanted, temperature)


def _cell_by_cell(x: Tensor, axis: int, wanted: list[int], temperature: float) -> Tensor:
    """Each cell's soft maximum, the cells taken apart along `axis` and those behind it."""
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
    Adjoint: ct * sigma((a - b) / T) to a, the rest to b
    Limit:   T -> 0 gives the arg-max
    """
    share = torch.sigmoid((a - b) * (1 / temperature))
    return a * stop_gradient(share) + b * stop_gradient(1 - share)


POOLING = (max_pool, adaptive_max_pool, amax, maximum)
