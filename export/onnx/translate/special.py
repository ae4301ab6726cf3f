"""Special functions that ONNX has no operator for, by series and polynomials that are right to single precision.

Inverse of the error function: M. Giles, Approximating the erfinv function, GPU Computing Gems, 2011; the tails of the
inverse normal cdf: `ndtri` of S. Moshier's Cephes. Gamma functions: Stirling's series behind a few steps of their
recurrence, and their reflection for small and negative numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.values import Value

aten = torch.ops.aten

_NEAR = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503,
         -0.00417768164, 0.246640727, 1.50140941)  # fmt: skip
_FAR = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613,
        0.00943887047, 1.00167406, 2.83297682)  # fmt: skip
_TAIL = (4.05544892305962419923, 31.5251094599893866154, 57.1628192246421288162, 44.0805073893200834700,
         14.6849561928858024014, 2.18663306850790267539, -0.140256079171354495875, -0.0350424626827848203418,
         -8.57456785154685413611e-4)  # fmt: skip
_UNDER_TAIL = (1.0, 15.7799883256466749731, 45.3907635128879210584, 41.3172038254672030440, 15.0425385692907503408,
               2.50464946208309415979, -0.142182922854787788574, -0.0380806407691578277194,
               -9.33259480895457427372e-4)  # fmt: skip
_FAR_TAIL = (3.23774891776946035970, 6.91522889068984211695, 3.93881025292474443415, 1.33303460815807542389,
             0.201485389549179081538, 0.0123716634817820021358, 3.01581553508235416007e-4,
             2.65806974686737550832e-6, 6.23974539184983293730e-9)  # fmt: skip
_UNDER_FAR_TAIL = (1.0, 6.02427039364742014255, 3.67983563856160859403, 1.37702099489081330271,
                   0.216236993594496635890, 0.0134204006088543189037, 3.28014464682127739104e-4,
                   2.89247864745380683936e-6, 6.79019408009981274425e-9)  # fmt: skip
_STEPS = 4  # then the series is right to single precision


def erfinv(b: Builder, x: Value) -> Value:
    """Two polynomials of Log, near zero and far from it."""
    one = b.const(1, b.dtype)
    return _erfinv(b, x, b.op("Mul", b.op("Sub", one, x), b.op("Add", one, x)))


def ndtri(b: Builder, p: Value) -> Value:
    """Log and the polynomials of `erfinv`, and in the far tails a quotient of two: the inverse of the normal cdf."""
    one, zero = b.const(1, b.dtype), b.const(0, b.dtype)
    rest = b.op("Min", p, b.op("Sub", one, p))
    x = b.op("Sub", b.op("Mul", b.const(2, b.dtype), p), one)
    left = b.op("Mul", b.const(4, b.dtype), b.op("Mul", p, b.op("Sub", one, p)))
    found = b.op("Mul", _erfinv(b, x, left), b.const(math.sqrt(2), b.dtype))
    far = b.op("And", b.op("Less", rest, b.const(1e-6, b.dtype)), b.op("Greater", rest, zero))
    size = b.op("Sqrt", b.op("Mul", b.const(-2, b.dtype), b.op("Log", b.op("Where", far, rest, one))))
    size = b.op("Where", far, size, b.const(8, b.dtype))
    inverse = b.op("Reciprocal", size)
    moved = b.op("Sub", size, b.op("Mul", b.op("Log", size), inverse))
    near = b.op("Div", _polynomial(b, inverse, _TAIL), _polynomial(b, inverse, _UNDER_TAIL))
    farther = b.op("Div", _polynomial(b, inverse, _FAR_TAIL), _polynomial(b, inverse, _UNDER_FAR_TAIL))
    quotient = b.op("Where", b.op("Less", size, b.const(8, b.dtype)), near, farther)
    tail = b.op("Sub", moved, b.op("Mul", inverse, quotient))
    return b.op("Where", far, b.op("Mul", b.op("Sign", x), tail), found)


def _erfinv(b: Builder, x: Value, left: Value) -> Value:
    """The inverse of the error function at x, with `1 - x * x` as it is known best."""
    w = b.op("Neg", b.op("Log", left))
    near = _polynomial(b, b.op("Sub", w, b.const(2.5, b.dtype)), _NEAR)
    far = _polynomial(b, b.op("Sub", b.op("Sqrt", b.op("Max", w, b.const(0, b.dtype))), b.const(3, b.dtype)), _FAR)
    found = b.op("Mul", b.op("Where", b.op("Less", w, b.const(5, b.dtype)), near, far), x)
    ends = b.op("Equal", left, b.const(0, b.dtype))
    return b.op("Where", ends, b.op("Mul", b.op("Sign", x), b.const(math.inf, b.dtype)), found)


def _polynomial(b: Builder, x: Value, factors: Sequence[float]) -> Value:
    """By Horner's scheme, the highest power first."""
    made = b.const(factors[0], b.dtype)
    for factor in factors[1:]:
        made = b.op("Add", b.op("Mul", made, x), b.const(factor, b.dtype))
    return made


def lgamma(b: Builder, x: Value) -> Value:
    """Log and Stirling's series."""
    half, infinite = b.const(0.5, b.dtype), b.const(math.inf, b.dtype)
    negative, y = _positive(b, x)
    near = b.op("Less", y, b.const(_STEPS, b.dtype))
    steps = _steps(b, y)
    product = steps[0]
    for step in steps[1:]:
        product = b.op("Mul", product, step)
    z = b.op("Where", near, b.op("Add", y, b.const(_STEPS, b.dtype)), y)
    taken = b.op("Log", b.op("Where", near, product, b.const(1, b.dtype)))
    powers = b.op("Mul", b.op("Sub", z, half), b.op("Sub", b.op("Log", z), b.const(1, b.dtype)))
    inverse = b.op("Reciprocal", z)
    series = b.op("Mul", _polynomial(b, b.op("Mul", inverse, inverse), (1 / 1260, -1 / 360, 1 / 12)), inverse)
    made = b.op("Add", b.op("Sub", powers, taken), b.const(0.5 * math.log(2 * math.pi) - 0.5, b.dtype))
    made = b.op("Add", made, series)
    sine = b.op("Log", b.op("Abs", b.op("Sin", _angle(b, x))))
    reflected = b.op("Sub", b.op("Sub", b.const(math.log(math.pi), b.dtype), sine), made)
    made = b.op("Where", negative, reflected, made)
    return b.op("Where", b.op("Equal", b.op("Abs", x), infinite), infinite, made)


def digamma(b: Builder, x: Value) -> Value:
    """Log and Stirling's series, less the Reciprocals of the steps."""
    negative, y = _positive(b, x)
    inverse = b.op("Reciprocal", b.op("Add", y, b.const(_STEPS, b.dtype)))
    made = b.op("Sub", b.op("Neg", b.op("Log", inverse)), b.op("Mul", inverse, b.const(0.5, b.dtype)))
    square = b.op("Mul", inverse, inverse)
    made = b.op("Sub", made, b.op("Mul", square, _polynomial(b, square, (1 / 252, -1 / 120, 1 / 12))))
    for step in _steps(b, y):
        made = b.op("Sub", made, b.op("Reciprocal", step))
    angle = _angle(b, x)
    turned = b.op("Div", b.op("Mul", b.op("Cos", angle), b.const(math.pi, b.dtype)), b.op("Sin", angle))
    return b.op("Where", negative, b.op("Sub", made, turned), made)


def polygamma(b: Builder, order: int, x: Value) -> Value:
    """Reciprocal of the steps, squared, and Stirling's series: the derivative of the first, of order 1."""
    if order == 0:
        return digamma(b, x)
    if order != 1:
        raise b.error(
            f"polygamma of order {order} has no translation, those of order 0 and 1 have",
            "It is the derivative of one of an order less: take that, or leave the operator out of the model.",
        )
    negative, y = _positive(b, x)
    inverse = b.op("Reciprocal", b.op("Add", y, b.const(_STEPS, b.dtype)))
    square = b.op("Mul", inverse, inverse)
    series = b.op("Mul", _polynomial(b, square, (1 / 42, -1 / 30, 1 / 6, 1.0)), inverse)
    made = b.op("Add", series, b.op("Mul", square, b.const(0.5, b.dtype)))
    for step in _steps(b, y):
        taken = b.op("Reciprocal", step)
        made = b.op("Add", made, b.op("Mul", taken, taken))
    turned = b.op("Div", b.const(math.pi, b.dtype), b.op("Sin", _angle(b, x)))
    return b.op("Where", negative, b.op("Sub", b.op("Mul", turned, turned), made), made)


def _positive(b: Builder, x: Value) -> tuple[Value, Value]:
    """Whether a number is below one half, and what is above: the number itself or its reflection."""
    negative = b.op("Less", x, b.const(0.5, b.dtype))
    return negative, b.op("Where", negative, b.op("Sub", b.const(1, b.dtype), x), x)


def _steps(b: Builder, y: Value) -> list[Value]:
    """What the recurrence steps over: y, y + 1, ..."""
    return [y, *(b.op("Add", y, b.const(i, b.dtype)) for i in range(1, _STEPS))]


def _angle(b: Builder, x: Value) -> Value:
    """The part of a number behind the point, as an angle of half a turn."""
    return b.op("Mul", b.op("Sub", x, b.op("Floor", x)), b.const(math.pi, b.dtype))


TABLE: dict[OpOverload, Translator] = {
    aten.erfinv.default: erfinv,
    aten.special_ndtri.default: ndtri,
    aten.lgamma.default: lgamma,
    aten.digamma.default: digamma,
    aten.polygamma.default: polygamma,
}
