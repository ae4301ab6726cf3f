"""The windows of a pooling, as one strided slice for each position in the window: this works at a free size too."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from fxpullback.graph.ir import aten, stop_gradient
from fxpullback.graph.shapes import is_free


def pooled_size(size: int, kernel: int, stride: int, padding: int, dilation: int, *, ceil: bool) -> int:
    """Number of windows along one axis, as torch counts them: no window starts in the padding behind the input."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (-(-span // stride) if ceil else span // stride) + 1
    return count - 1 if ceil and (count - 1) * stride >= size + padding else count


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
    after = [
        p + (s - 1) * ceil if is_free(size) else max(n - p - size, 0)
        for n, p, s, size in zip(needed, padding, stride, sizes, strict=True)
    ]
    sides = [side for p, a in zip(reversed(padding), reversed(after), strict=True) for side in (p, a)]
    padded = torch.constant_pad_nd(x, sides, fill) if any(sides) else x
    windows = []
    for offsets in itertools.product(*[range(k) for k in kernel]):
        tap = padded
        for i, (o, d, s, c) in enumerate(zip(offsets, dilation, stride, counts, strict=True)):
            tap = aten.slice.Tensor(tap, 2 + i, o * d, o * d + (c - 1) * s + 1, s)
        windows.append(tap)
    return windows


def soft_maximum_of_taps(
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil: bool,
    temperature: float,
) -> Tensor:
    """sum_i x_i * sg[softmax_i(x / T)] over every window; the exponentials are relative to the largest entry.

    Args:
        x: `[batch, channels, *sizes]`; sizes may be free.
        kernel: window sizes; `stride`, `padding`, `dilation` and `ceil` as in torch's max-pools.
        temperature: T.

    Returns:
        `[batch, channels, *pooled sizes]`.
    """
    values = taps(x, kernel, stride, padding, dilation, ceil=ceil, fill=0.0)
    selectors = taps(x, kernel, stride, padding, dilation, ceil=ceil, fill=-math.inf)
    largest = selectors[0]
    for selector in selectors[1:]:
        largest = torch.maximum(largest, selector)
    weights = [torch.exp((selector - largest) * (1 / temperature)) for selector in selectors]
    share = torch.reciprocal(sum(weights[1:], weights[0]))
    terms = [v * stop_gradient(w) * stop_gradient(share) for v, w in zip(values, weights, strict=True)]
    return sum(terms[1:], terms[0])
