"""A complex value as a pair of real ones, and the arithmetic of pairs.

A part that is None is zero everywhere: a real number in a complex type has no imaginary part to compute with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Real = Any  # a `Value`; torch code on it writes nodes
Part = Real | None


@dataclass(frozen=True, eq=False)
class Pair:
    """`real + 1j * imag`; one of the two may be None, zero everywhere."""

    real: Part
    imag: Part

    @property
    def some(self) -> Real:
        """A part that is there: it has the shape, the type and the device of both."""
        found = self.imag if self.real is None else self.real
        assert found is not None, "a pair has a part that is not zero"
        return found

    def both(self) -> tuple[Real, Real]:
        """Both parts, zeros written out."""
        zeros: Any = torch.zeros_like(self.some) if self.real is None or self.imag is None else None
        return (zeros if self.real is None else self.real), (zeros if self.imag is None else self.imag)

    def each(self, function: Callable[[Real], Real]) -> Pair:
        """A real linear function of the value: of each part by itself."""
        return Pair(_of(function, self.real), _of(function, self.imag))

    def conj(self) -> Pair:
        """`real - 1j * imag`."""
        return Pair(self.real, negative(self.imag))


def pair(value: Any) -> Pair:
    """A pair as it is; a real tensor has no imaginary part."""
    return value if isinstance(value, Pair) else Pair(value, None)


def _of(function: Callable[[Real], Real], part: Part) -> Part:
    return None if part is None else function(part)


def negative(a: Part) -> Part:
    """-a."""
    return None if a is None else -a


def plus(a: Part, b: Part) -> Part:
    """a + b."""
    if a is None or b is None:
        return b if a is None else a
    total: Real = a + b
    return total


def minus(a: Part, b: Part) -> Part:
    """a - b."""
    if a is None or b is None:
        return negative(b) if a is None else a
    difference: Real = a - b
    return difference


Product = Callable[[Real, Real], Real]


def _product(product: Product, a: Part, b: Part) -> Part:
    return None if a is None or b is None else product(a, b)


def bilinear(product: Product, a: Pair, b: Pair) -> Pair:
    """A product that is linear in each factor: (a b)_real = a_r b_r - a_i b_i, (a b)_imag = a_r b_i + a_i b_r."""
    real = minus(_product(product, a.real, b.real), _product(product, a.imag, b.imag))
    imag = plus(_product(product, a.real, b.imag), _product(product, a.imag, b.real))
    return Pair(real, imag)


def times(a: Pair, b: Pair) -> Pair:
    """The product, entry by entry."""
    return bilinear(lambda m, n: m * n, a, b)


def scaled(a: Pair, number: complex) -> Pair:
    """A pair times a number."""
    factor = complex(number)

    def by(part: Part, real: float) -> Part:
        return None if part is None or real == 0 else part * real

    if factor == 0:
        return Pair(a.some * 0.0, None)
    real = minus(by(a.real, factor.real), by(a.imag, factor.imag))
    return Pair(real, plus(by(a.real, factor.imag), by(a.imag, factor.real)))


def squared_modulus(a: Pair) -> Real:
    """real^2 + imag^2."""
    found = plus(_product(lambda m, n: m * n, a.real, a.real), _product(lambda m, n: m * n, a.imag, a.imag))
    assert found is not None
    return found


def modulus(a: Pair) -> Real:
    """|a|, whose derivative is zero at zero, as torch has it for complex numbers: the norm of the two parts."""
    if a.real is None or a.imag is None:
        return a.some.abs()
    found: Real = torch.linalg.vector_norm(torch.stack([a.real, a.imag], -1), 2, [-1])
    return found
