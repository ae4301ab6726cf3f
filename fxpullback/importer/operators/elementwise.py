"""Operators that compute entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.importer.numbers import ARITHMETIC, Known, as_floats, as_whole
from fxpullback.importer.site import Node, dtype_of, scalar, tensor

Operator = Callable[..., Any]
FLOATS = (1, 10, 11, 16)


def of_one(function: Callable[[Tensor], Tensor]) -> Operator:
    """An operator of one tensor without attributes."""

    def run(node: Node, x: Any) -> Any:
        if isinstance(x, Known) and node.kind in ARITHMETIC:
            return Known(ARITHMETIC[node.kind](x.array), x.floats)
        return function(tensor(x))

    return run


def of_two(function: Callable[[Any, Any], Any]) -> Operator:
    """An operator of two broadcast arguments; at once where both are known."""

    def run(node: Node, a: Any, b: Any) -> Any:
        a, b = _number(node, 0, a, b), _number(node, 1, b, a)
        if isinstance(a, Known) and isinstance(b, Known) and node.kind in ARITHMETIC:
            return Known(ARITHMETIC[node.kind](a.array, b.array), a.floats)
        if isinstance(a, Known) or isinstance(b, Known):
            a, b = _alike(a, b)
        return function(scalar(node, 0, a, b), scalar(node, 1, b, a))

    return run


def _number(node: Node, place: int, value: Any, other: Any) -> Any:
    """A constant number beside numbers that are known, as 1 over the root of a width, is known as they are."""
    constant = node.constant(place)
    if not isinstance(other, Known) or not other.floats or other.array.dtype == object or constant is None:
        return value
    return Known(constant.astype(np.float64), True) if constant.size == 1 else value


def _alike(a: Any, b: Any) -> tuple[Any, Any]:
    """Both as tensors, what is known in the type of the other; of whole numbers the wider type."""
    if isinstance(a, Known) and isinstance(b, Tensor) and b.is_floating_point() and a.array.dtype.kind == "f":
        return torch.from_numpy(np.array(a.array)).to(b.dtype), b
    if isinstance(b, Known) and isinstance(a, Tensor) and a.is_floating_point() and b.array.dtype.kind == "f":
        return a, torch.from_numpy(np.array(b.array)).to(a.dtype)
    a, b = tensor(a), tensor(b)
    return (a, b.to(a.dtype)) if a.dtype != b.dtype and not a.is_floating_point() else (a, b)


def of_many(step: Callable[[Any, Any], Any]) -> Operator:
    """An operator of one or more broadcast arguments, folded from the left."""

    def run(node: Node, *given: Any) -> Any:
        if all(isinstance(value, Known) for value in given) and node.kind in ARITHMETIC:
            return Known(reduce(ARITHMETIC[node.kind], (value.array for value in given)), given[0].floats)
        return reduce(step, map(tensor, given))

    return run


def mean(node: Node, *given: Any) -> Any:
    """The mean of broadcast arguments."""
    total: Tensor = reduce(torch.add, map(tensor, given))
    return total / len(given)


def divide(a: Any, b: Any) -> Any:
    """A quotient; of whole numbers it is cut to a whole one."""
    whole = [value for value in (a, b) if isinstance(value, Tensor) and not value.is_floating_point()]
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


def mod(node: Node, a: Any, b: Any) -> Any:
    """The remainder with the sign of the divisor, or as C has it."""
    if isinstance(a, Known) and isinstance(b, Known):
        return Known(ARITHMETIC["Mod"](a.array, b.array))
    a, b = tensor(a), tensor(b)
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


def power(node: Node, a: Any, b: Any) -> Any:
    """a^b, of the type of a."""
    exponent = node.constant(1)
    if exponent is not None and exponent.size == 1 and isinstance(a, Tensor) and exponent.ndim <= a.ndim:
        number = exponent.reshape(-1)[0].item()
        return torch.pow(a, int(number) if number == int(number) else number)
    return torch.pow(tensor(a), tensor(b)).to(tensor(a).dtype)


def cast(node: Node, x: Any, *_: Any) -> Any:
    """Another type; of known numbers what they then are."""
    kind = node.get("to")
    if isinstance(x, Known):
        if kind in FLOATS:
            return Known(as_floats(x.array), True)
        if kind == 9:
            return Known(x.array.astype(bool))
        return Known(as_whole(x.array))
    dtype = dtype_of(kind)
    if x.is_floating_point() and not dtype.is_floating_point and dtype is not torch.bool:
        x = torch.trunc(x)
    return x.to(dtype)


def cast_like(node: Node, x: Any, other: Any) -> Any:
    """The type of another value."""
    return tensor(x).to(tensor(other).dtype)


def where(node: Node, condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, else b."""
    given = (condition, a, b)
    if all(isinstance(value, Known) for value in given):
        return Known(ARITHMETIC["Where"](*(value.array for value in given)), a.floats)
    condition, a, b = map(tensor, given)
    return torch.where(condition.bool(), a, b)


def clip(node: Node, x: Any, *rest: Any) -> Any:
    """Between two bounds, either of which may be left out."""
    low = node.get("min") if node.opset < 11 else _bound(node, 1, rest)
    high = node.get("max") if node.opset < 11 else _bound(node, 2, rest)
    if isinstance(x, Known):
        array = x.array if low is None else ARITHMETIC["Max"](x.array, np.asarray(low))
        return Known(array if high is None else ARITHMETIC["Min"](array, np.asarray(high)), x.floats)
    if low is not None and high is None and low == 0 and not isinstance(low, Tensor):
        return torch.relu(x)
    return x if low is None and high is None else torch.clamp(x, low, high)


def _bound(node: Node, place: int, rest: tuple[Any, ...]) -> Any:
    value = rest[place - 1] if len(rest) >= place else None
    constant = node.constant(place)
    if constant is not None:
        return constant.reshape(-1)[0].item()
    return tensor(value)


def relu(node: Node, x: Any) -> Any:
    """max(x, 0)."""
    return torch.relu(tensor(x))


def leaky(node: Node, x: Any) -> Any:
    """x, and alpha x below zero."""
    return F.leaky_relu(x, node.get("alpha", 0.01))


def elu(node: Node, x: Any) -> Any:
    """x, and alpha (e^x - 1) below zero."""
    return F.elu(x, node.get("alpha", 1.0))


def celu(node: Node, x: Any) -> Any:
    """x, and alpha (e^(x / alpha) - 1) below zero."""
    return F.celu(x, node.get("alpha", 1.0))


def selu(node: Node, x: Any) -> Any:
    """gamma times x, or times alpha (e^x - 1) below zero."""
    alpha, gamma = node.get("alpha", 1.67326319217681884765625), node.get("gamma", 1.05070102214813232421875)
    if abs(alpha - 1.6732632423543772) < 1e-5 and abs(gamma - 1.0507009873554805) < 1e-5:
        return F.selu(x)
    return gamma * F.elu(x, alpha)


def prelu(node: Node, x: Any, slope: Any) -> Any:
    """x, and slope x below zero, one slope for each channel or entry."""
    slope = tensor(slope)
    channels, behind = x.shape[1] if x.ndim > 1 else 1, x.ndim - 2
    of_channels = slope.ndim > behind >= 0 and slope.shape[slope.ndim - 1 - behind] == slope.numel() == channels
    if slope.numel() == 1 or of_channels:
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x > 0, x, x * slope)


def hard_sigmoid(node: Node, x: Any) -> Any:
    """alpha x + beta between 0 and 1."""
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


def gelu(node: Node, x: Any) -> Any:
    """x Phi(x), or its tanh form."""
    return F.gelu(x, approximate=node.text("approximate", "none"))


def fast_gelu(node: Node, x: Any, bias: Any = None) -> Any:
    """The tanh form of GELU, of x plus a bias."""
    return F.gelu(x if bias is None else x + tensor(bias), approximate="tanh")


def bias_gelu(node: Node, x: Any, bias: Any) -> Any:
    """GELU of x plus a bias."""
    return F.gelu(x + tensor(bias))


def quick_gelu(node: Node, x: Any) -> Any:
    """x sigmoid(alpha x)."""
    alpha = node.get("alpha", 1.702)
    return F.silu(x) if alpha == 1.0 else x * torch.sigmoid(x * alpha)


def swish(node: Node, x: Any) -> Any:
    """x sigmoid(alpha x)."""
    alpha = node.get("alpha", 1.0)
    return F.silu(x) if alpha == 1.0 else x * torch.sigmoid(x * alpha)


def swiglu(node: Node, a: Any, b: Any) -> Any:
    """a sigmoid(alpha a) b."""
    return swish(node, a) * b


def thresholded(node: Node, x: Any) -> Any:
    """x above alpha, else zero."""
    return F.threshold(x, node.get("alpha", 1.0), 0.0)


def shrink(node: Node, x: Any) -> Any:
    """x - bias above lambd, x + bias below -lambd, else zero."""
    width, bias = node.get("lambd", 0.5), node.get("bias", 0.0)
    if bias in (0.0, width):
        return F.hardshrink(x, width) if bias == 0.0 else F.softshrink(x, width)
    return torch.where(x < -width, x + bias, torch.where(x > width, x - bias, x * 0.0))


def round_even(x: Tensor) -> Tensor:
    """To the nearest whole number, halves to the even one."""
    return torch.round(x)


def is_infinite(node: Node, x: Any) -> Any:
    """Where x is infinite, of the signs that are asked for."""
    found = torch.isinf(x)
    if not node.get("detect_positive", 1):
        found = found & (x < 0)
    if not node.get("detect_negative", 1):
        found = found & (x > 0)
    return found


def same(node: Node, x: Any, *_: Any) -> Any:
    """What it is given."""
    return x


def dropout(node: Node, x: Any, *rest: Any) -> Any:
    """What it is given: outside of training nothing is dropped."""
    return (x, torch.ones_like(x, dtype=torch.bool)) if len(node.outputs) > 1 else x


ONE: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs, "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin, "Asinh": torch.asinh,
    "Atan": torch.atan, "Atanh": torch.atanh, "Ceil": torch.ceil, "Cos": torch.cos, "Cosh": torch.cosh,
    "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "IsNaN": torch.isnan, "Log": torch.log,
    "Neg": torch.neg, "Not": torch.logical_not, "Reciprocal": torch.reciprocal, "Round": round_even,
    "Sigmoid": torch.sigmoid, "Sign": torch.sign, "Sin": torch.sin, "Sinh": torch.sinh, "Sqrt": torch.sqrt,
    "Softplus": F.softplus, "Softsign": F.softsign, "HardSwish": F.hardswish, "Mish": F.mish, "Tan": torch.tan,
    "Tanh": torch.tanh, "BitwiseNot": torch.bitwise_not,
}  # fmt: skip
TWO: dict[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mul": lambda a, b: a * b, "Div": divide,
    "Equal": lambda a, b: a == b, "Less": lambda a, b: a < b, "LessOrEqual": lambda a, b: a <= b,
    "Greater": lambda a, b: a > b, "GreaterOrEqual": lambda a, b: a >= b,
    "And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor,
    "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or, "BitwiseXor": torch.bitwise_xor,
}  # fmt: skip
OPERATORS: dict[str, Operator] = {
    **{name: of_one(function) for name, function in ONE.items()},
    **{name: of_two(function) for name, function in TWO.items()},
    "Max": of_many(torch.maximum),
    "Min": of_many(torch.minimum),
    "Sum": of_many(torch.add),
    "Mean": mean,
    "Mod": mod,
    "Pow": power,
    "Cast": cast,
    "CastLike": cast_like,
    "Where": where,
    "Clip": clip,
    "Relu": relu,
    "LeakyRelu": leaky,
    "Elu": elu,
    "Celu": celu,
    "Selu": selu,
    "PRelu": prelu,
    "HardSigmoid": hard_sigmoid,
    "Gelu": gelu,
    "Swish": swish,
    "SwiGLU": swiglu,
    "ThresholdedRelu": thresholded,
    "Shrink": shrink,
    "IsInf": is_infinite,
    "Identity": same,
    "Dropout": dropout,
    "com.microsoft.Gelu": gelu,
    "com.microsoft.FastGelu": fast_gelu,
    "com.microsoft.BiasGelu": bias_gelu,
    "com.microsoft.QuickGelu": quick_gelu,
}
