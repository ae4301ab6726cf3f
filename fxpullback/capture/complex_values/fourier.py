"""Discrete Fourier transforms of pairs along one axis, as products with constant matrices.

Up to `DIRECT` points a transform is one matrix; above, n = p q points are p transforms of q points, a product with the
powers of the root of unity between, and q transforms of p points (Cooley and Tukey 1965).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fxpullback.capture.complex_values.pair import Pair, Real, bilinear, plus

DIRECT = 1024  # points; a matrix of as many rows and columns is 4 MiB in float32, and there are two
LARGEST_PRIME = 4096  # points that are not taken apart

Refuse = Callable[[str], Exception]


def powers(rows: Tensor, columns: Tensor, points: int, sign: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of `sign * 2 pi * rows * columns / points`, `[rows, columns]` in float64, times a number.

    The angle is reduced in integers, so that a zero of either is zero.
    """
    turns = torch.outer(rows, columns) % points
    angle = turns.double() * (2 * math.pi / points)
    cosine, sine = torch.cos(angle), torch.sin(angle) * sign
    cosine[(turns * 4 == points) | (turns * 4 == 3 * points)] = 0.0
    sine[(turns == 0) | (turns * 2 == points)] = 0.0
    return cosine * scale, sine * scale


def matrix(rows: int, columns: int, points: int, sign: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """The matrix of a transform, real and imaginary part `[rows, columns]`: scale * exp(sign 2 pi i jk / points)."""
    return powers(torch.arange(rows), torch.arange(columns), points, sign, scale)


def constants(like: Real, parts: tuple[Tensor, Tensor]) -> Pair:
    """Two float64 tensors as constants in the type of a value; one that is zero everywhere is None."""
    real, imag = (like.exact_constant(part) if bool(part.any()) else None for part in parts)
    return Pair(real, imag)


def contract(x: Pair, with_matrix: tuple[Tensor, Tensor]) -> Pair:
    """The last axis of x times a constant complex matrix `[before, after]`."""
    return bilinear(torch.matmul, x, constants(x.some, with_matrix))


def along(axis: int, x: Pair, function: Callable[[Pair], Pair]) -> Pair:
    """A function of the last axis, applied along another one."""
    if axis == x.some.ndim - 1:
        return function(x)
    swap = partial(_swapped, axis)
    return function(x.each(swap)).each(swap)


def _swapped(axis: int, x: Real) -> Real:
    swapped: Real = x.transpose(axis, -1)
    return swapped


def transform(x: Pair, points: int, sign: int, scale: float, refuse: Refuse, kept: int | None = None) -> Pair:
    """y[k] = scale * sum of x[j] * exp(sign 2 pi i jk / points) along the last axis.

    Args:
        x: `[..., points]`.
        points: how many there are.
        sign: -1 for the forward transform, +1 for the inverse.
        scale: a number.
        refuse: makes the error of a reason.
        kept: how many of the results are wanted; without, all of them.

    Returns:
        `[..., kept]`.
    """
    kept = points if kept is None else kept
    part = max(d for d in range(1, math.isqrt(points) + 1) if points % d == 0)
    if points <= DIRECT or (part == 1 and points <= LARGEST_PRIME):
        return contract(x, matrix(points, kept, points, sign, scale))
    if part == 1:
        raise refuse(
            f"transforms {points} points, a prime number above {LARGEST_PRIME}, whose matrix would hold "
            f"{points * points * 2 // 10**6} million numbers. Pad or cut the axis to a length with small factors"
        )
    whole = _in_two_steps(x, points // part, part, sign, scale, refuse)
    return whole if kept == points else whole.each(lambda z: z[..., :kept])


def _in_two_steps(x: Pair, outer: int, inner: int, sign: int, scale: float, refuse: Refuse) -> Pair:
    """The transform of outer * inner points; place j = inner * j1 + j2, frequency k = k1 + outer * k2."""
    leading = list(x.some.shape[:-1])
    grid = x.each(lambda z: z.reshape([*leading, outer, inner]))
    first = grid.each(lambda z: z.transpose(-1, -2))  # [..., j2, j1]
    first = transform(first, outer, sign, 1.0, refuse)  # [..., j2, k1]
    twiddle = constants(first.some, powers(torch.arange(inner), torch.arange(outer), outer * inner, sign))
    turned = bilinear(lambda m, n: m * n, first, twiddle).each(lambda z: z.transpose(-1, -2))  # [..., k1, j2]
    second = transform(turned, inner, sign, scale, refuse).each(lambda z: z.transpose(-1, -2))  # [..., k2, k1]
    return second.each(lambda z: z.reshape([*leading, outer * inner]))


def half_inverse(points: int, scale: float) -> tuple[Tensor, Tensor]:
    """What takes half a spectrum to its real signal: y = real @ first + imag @ second, `[points // 2 + 1, points]`.

    Every frequency but the first, and the middle one where there is one, stands for its mirror image besides.
    """
    half = points // 2 + 1
    cosine, sine = matrix(half, points, points, 1, scale)
    count = torch.full((half, 1), 2.0, dtype=torch.float64)
    count[0] = 1.0
    if points % 2 == 0:
        count[-1] = 1.0
    return cosine * count, -sine * count


def to_real(x: Pair, points: int, scale: float, refuse: Refuse) -> Pair:
    """The inverse transform of half a spectrum, whose other half is its mirror image.

    Args:
        x: `[..., points // 2 + 1]`.
        points: how many there are of the signal.
        scale: a number.
        refuse: makes the error of a reason.

    Returns:
        `[..., points]`, a pair without imaginary part.
    """
    if points <= DIRECT:
        first, second = (x.some.exact_constant(part) for part in half_inverse(points, scale))
        return Pair(plus(_product(x.real, first), _product(x.imag, second)), None)
    mirrored = x.each(lambda z: z[..., 1 : (points + 1) // 2].flip([-1])).conj()
    whole = Pair(_joined(x.real, mirrored.real), _joined(x.imag, mirrored.imag))
    return Pair(transform(whole, points, 1, scale, refuse).real, None)


def _product(part: Real | None, by: Real) -> Real | None:
    return None if part is None else torch.matmul(part, by)


def _joined(part: Real | None, more: Real | None) -> Real | None:
    return None if part is None or more is None else torch.cat([part, more], -1)
