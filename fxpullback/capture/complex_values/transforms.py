"""torch's Fourier transforms, all of `torch.fft` taken apart: real to complex, complex to complex, complex to real."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from fxpullback.capture.complex_values import fourier
from fxpullback.capture.complex_values.pair import Pair, Real, pair
from fxpullback.contract.errors import CaptureError
from fxpullback.graph.ir import where
from fxpullback.graph.rebuild import Site
from fxpullback.graph.shapes import is_free, plain

FORWARD, INVERSE = -1, 1


def refusal(site: Site) -> fourier.Refuse:
    """The error of an operator that is refused, by the reason."""
    return lambda why: CaptureError(f"{where(site.node)} {why}.")


def points_of(site: Site, x: Pair, axis: int) -> int:
    """The length of an axis that is transformed.

    Raises:
        CaptureError: it is free; the matrix of a transform has one size.
    """
    size = x.some.shape[axis]
    if is_free(size):
        raise refusal(site)(
            f"transforms axis {axis}, whose length is free: a transform is a product with a constant matrix, which has "
            "one size. Compile with that axis fixed; of several samples it may not mix the batch"
        )
    return int(plain(size))


def _scale(mode: int, points: int) -> float:
    """torch's three normalizations: none, by the root of the number of points, by the number."""
    return (1.0, 1 / math.sqrt(points), 1 / points)[mode]


def _along(site: Site, x: Pair, axes: list[int], sign: int, scale: float = 1.0) -> Pair:
    """A complex transform along several axes, times a number."""
    for axis in axes:
        one = partial(_one, points=points_of(site, x, axis), sign=sign, scale=scale, refuse=refusal(site))
        x, scale = fourier.along(axis, x, one), 1.0
    return x


def _one(x: Pair, points: int, sign: int, scale: float, refuse: fourier.Refuse) -> Pair:
    return fourier.transform(x, points, sign, scale, refuse)


def complex_to_complex(site: Site, x: Any, axes: list[int], mode: int, forward: bool) -> Pair:
    """`aten._fft_c2c`."""
    x = pair(x)
    axes = _axes(x, axes)
    scale = _scale(mode, math.prod(points_of(site, x, axis) for axis in axes))
    return _along(site, x, axes, FORWARD if forward else INVERSE, scale)


def real_to_complex(site: Site, x: Real, axes: list[int], mode: int, onesided: bool) -> Pair:
    """`aten._fft_r2c`: the last of the axes first, of which the half of the spectrum is kept that says all of it."""
    found = pair(x)
    *others, last = _axes(found, axes)
    scale = _scale(mode, math.prod(points_of(site, found, axis) for axis in (*others, last)))
    n = points_of(site, found, last)
    kept = n // 2 + 1 if onesided else n
    found = fourier.along(last, found, lambda z: fourier.transform(z, n, FORWARD, scale, refusal(site), kept))
    return _along(site, found, others, FORWARD)


def complex_to_real(site: Site, x: Any, axes: list[int], mode: int, points: Any) -> Real:
    """`aten._fft_c2r`: the last of the axes last, by half of the spectrum."""
    found = pair(x)
    *others, last = _axes(found, axes)
    points_of(site, found, last)
    if is_free(points):
        raise refusal(site)("gives an axis whose length is free. Compile with that axis fixed")
    n = int(plain(points))
    scale = _scale(mode, n * math.prod(points_of(site, found, axis) for axis in others))
    found = _along(site, found, others, INVERSE)
    return fourier.along(last, found, lambda z: fourier.to_real(z, n, scale, refusal(site))).some


def _axes(x: Pair, axes: list[int]) -> list[int]:
    return [axis % x.some.ndim for axis in axes]
