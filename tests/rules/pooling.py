"""Rows of the max-pools."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.rules import pooling as rules
from tests.helpers import draw, pulled_back
from tests.rules.oracles import soft_pool_adjoint
from tests.rules.rows import Row

POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
ARGUMENTS = ("kernel_size", "stride", "padding", "dilation")


def _each(value: Any, n: int) -> list[int]:
    return [value] * n if isinstance(value, int) else list(value)


def pool(sizes: tuple[int, ...], note: str, reference: bool = False, level: float = 0.0, **options: Any) -> Row:
    """A max-pool of `[2, 2, *sizes]`; the window's options are those of torch."""
    n = len(sizes)
    rule = rules.max_pool_zero_padding if reference else rules.max_pool
    kernel = _each(options["kernel_size"], n)
    window = [kernel, _each(options.get("stride") or kernel, n)]
    window += [_each(options.get("padding", 0), n), _each(options.get("dilation", 1), n)]

    def primal(x: Tensor) -> Tensor:
        result: Tensor = POOLS[n](x, **options)
        return result

    x = draw(2, 2, *sizes, seed=4) + level
    return Row(
        rule,
        primal,
        lambda x, t: rule(x, *window, options.get("ceil_mode", False), temperature=t),
        lambda x, ct, t: soft_pool_adjoint(x, ct, window, t, reference),
        x,
        lambda x, ct: pulled_back(primal, x, ct),
        x.abs() + 0.1 if reference else x,  # where the padding's zero is no largest value
        note + ("-reference" if reference else ""),
    )


WINDOWS: list[tuple[tuple[int, ...], str, dict[str, Any]]] = [
    ((6, 5), "2x2", {"kernel_size": 2}),
    ((7, 6), "3x3s2p1", {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((5, 7), "overlapping", {"kernel_size": 3, "stride": 1}),
    ((7, 6), "uneven", {"kernel_size": (2, 3), "stride": (3, 1), "padding": (1, 0)}),
    ((9, 8), "dilated", {"kernel_size": 3, "dilation": 2, "padding": 1}),
    ((7,), "1d", {"kernel_size": 3, "stride": 2, "padding": 1}),
]

ROWS = [
    *(pool(sizes, note, **options) for sizes, note, options in WINDOWS),
    *(pool(sizes, note, reference=True, **options) for sizes, note, options in WINDOWS if len(sizes) == 2),
    pool((7, 8), "ceil", kernel_size=3, stride=2, ceil_mode=True),
    pool((6, 6), "ceil-padded", kernel_size=3, stride=2, padding=1, ceil_mode=True),
    pool((8, 8), "ceil-last-in-padding", kernel_size=2, stride=2, padding=1, ceil_mode=True),
    pool((9, 7), "ceil-dilated", kernel_size=2, stride=2, dilation=(3, 2), ceil_mode=True),
    pool((4, 3, 5), "3d", kernel_size=2, ceil_mode=True),
    pool((7, 6), "far-below", level=-1e4, kernel_size=3, stride=2, padding=1),
]


def _amax_adjoint(dims: tuple[int, ...], keepdim: bool) -> Any:
    def adjoint(x: Tensor, ct: Tensor, temperature: float) -> Tensor:
        up = ct if keepdim else ct.reshape([1 if d in dims else n for d, n in enumerate(x.shape)])
        weights = torch.exp((x - x.amax(dims, True)) / temperature)
        return up * weights / weights.sum(dims, keepdim=True)

    return adjoint


def amax(dims: tuple[int, ...], keepdim: bool, note: str) -> Row:
    def primal(x: Tensor) -> Tensor:
        return x.amax(dims, keepdim)

    return Row(
        rules.amax,
        primal,
        lambda x, t: rules.amax(x, list(dims), keepdim, temperature=t),
        _amax_adjoint(dims, keepdim),
        draw(2, 3, 4, 5, seed=4),
        lambda x, ct: pulled_back(primal, x, ct),
        note=note,
    )


def _pair(x: Tensor, ct: Tensor, temperature: float) -> Tensor:
    a, b = x[:, 0], x[:, 1]
    first = 1 / (1 + torch.exp((b - a) / temperature))
    return torch.stack([ct * first, ct * (1 - first)], 1)


def _larger(x: Tensor) -> Tensor:
    return torch.maximum(x[:, 0], x[:, 1])


ADAPTIVE = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}


def adaptive(size: tuple[int, ...], note: str, sizes: tuple[int, ...] = (6, 5)) -> Row:
    def primal(x: Tensor) -> Tensor:
        result: Tensor = ADAPTIVE[len(size)](x, size)
        return result

    return Row(
        rules.adaptive_max_pool,
        primal,
        lambda x, t: rules.adaptive_max_pool(x, list(size), temperature=t),
        lambda x, ct, t: _cells_adjoint(x, ct, size, t),
        draw(2, 2, *sizes, seed=4),
        lambda x, ct: pulled_back(primal, x, ct),
        note=note,
    )


def _cells_adjoint(x: Tensor, ct: Tensor, size: tuple[int, ...], temperature: float) -> Tensor:
    """Cell by cell, as torch bounds them: from floor(i n / m) to ceil((i + 1) n / m)."""
    result = torch.zeros_like(x)
    dims = tuple(range(2, x.ndim))
    for index in itertools.product(*[range(m) for m in size]):
        bounds = zip(index, x.shape[2:], size, strict=True)
        at = (slice(None), slice(None), *[slice(i * n // m, -(-(i + 1) * n // m)) for i, n, m in bounds])
        weights = torch.exp((x[at] - x[at].amax(dims, True)) / temperature)
        above = ct[(slice(None), slice(None), *[slice(i, i + 1) for i in index])]
        result[at] += above * weights / weights.sum(dims, keepdim=True)
    return result


ROWS += [
    amax((2, 3), False, "positions"),
    amax((1,), True, "channels"),
    Row(
        rules.maximum,
        _larger,
        lambda x, t: rules.maximum(x[:, 0], x[:, 1], temperature=t),
        _pair,
        draw(3, 2, 7, seed=4),
        lambda x, ct: pulled_back(_larger, x, ct),
    ),
    adaptive((1, 1), "global"),
    adaptive((3, 5), "even"),
    adaptive((4, 2), "uneven"),
    adaptive((4,), "1d", (7,)),
    adaptive((2, 3, 1), "3d", (3, 4, 2)),
]
