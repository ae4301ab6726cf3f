"""Operators that no file holds: what stands for the patterns of `fxpullback.importer.written`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.importer.numbers import ARITHMETIC, Known
from fxpullback.importer.site import Node, tensor


def log_sigmoid(node: Node, x: Any) -> Tensor:
    """The logarithm of a sigmoid."""
    return F.logsigmoid(x)


def softplus(node: Node, x: Any) -> Tensor:
    """log(1 + e^(beta x)) / beta, and x above a threshold."""
    return F.softplus(x, node.get("beta"), node.get("threshold"))


def threshold(node: Node, x: Any) -> Tensor:
    """x above a threshold, else a number."""
    return F.threshold(x, node.get("threshold"), node.get("value"))


def clamp(node: Node, x: Any) -> Tensor:
    """x no smaller, or no larger than a number."""
    if node.get("min") == 0.0:
        return torch.relu(x)
    return torch.clamp(x, node.get("min"), node.get("max"))


def largest(node: Node, x: Any) -> Tensor:
    """The largest entry along an axis, or the smallest."""
    function = torch.min if node.get("smallest") else torch.max
    made: Tensor = function(x, node.get("axis"), bool(node.get("keepdims")))[0]
    return made


def rsqrt(node: Node, x: Any) -> Any:
    """One over the root; of known numbers at once."""
    if isinstance(x, Known):
        return Known(ARITHMETIC["Div"](np.array(1.0), ARITHMETIC["Sqrt"](x.array)), True)
    return torch.rsqrt(x)


def variance(node: Node, x: Any) -> Tensor:
    """The variance over some axes."""
    axes, keep, given = list(node.get("axes")), bool(node.get("keepdims")), node.get("count")
    correction, sizes = node.get("correction"), [x.shape[axis] for axis in axes]
    known = all(isinstance(size, int) for size in sizes)
    if given and not (known and math.prod(sizes) == given):  # a count that is not that of the entries
        plain: Tensor = torch.var(x, axes, correction=0, keepdim=keep) * (given / (given - correction))
        return plain
    return torch.var(x, axes, correction=int(correction), keepdim=keep)


def deviation(node: Node, x: Any) -> Tensor:
    """The standard deviation over some axes."""
    axes, keep, given = list(node.get("axes")), bool(node.get("keepdims")), node.get("count")
    sizes = [x.shape[axis] for axis in axes]
    if given and not (all(isinstance(size, int) for size in sizes) and math.prod(sizes) == given):
        return torch.sqrt(variance(node, x))
    return torch.std(x, axes, correction=int(node.get("correction")), keepdim=keep)


def linear(node: Node, x: Any, weight: Any, bias: Any) -> Tensor:
    """A linear layer; its weight is as a product takes it."""
    return F.linear(x, tensor(weight).t(), tensor(bias))


def layer_norm(node: Node, x: Any, weight: Any = None, bias: Any = None) -> Tensor:
    """Without mean, of variance one over the last axes, then weight and bias."""
    sizes = list(x.shape[x.ndim - node.get("axes") :])
    given = [None if value is None else tensor(value) for value in (weight, bias)]
    plain = all(value is None or list(value.shape) == sizes for value in given)
    epsilon = node.get("epsilon")
    if plain:
        return F.layer_norm(x, sizes, given[0], given[1], epsilon)
    made = F.layer_norm(x, sizes, None, None, epsilon)
    made = made if given[0] is None else made * given[0]
    return made if given[1] is None else made + given[1]


def view(node: Node, x: Any) -> Tensor:
    """The same entries in other axes."""
    first, *others = node.get("sizes")
    made: Tensor = x.reshape([-1 if first in (-1, node.batch) else first, *others])
    return made


OPERATORS: dict[str, Callable[..., Any]] = {
    "fxpullback.LogSigmoid": log_sigmoid,
    "fxpullback.Softplus": softplus,
    "fxpullback.Threshold": threshold,
    "fxpullback.Clamp": clamp,
    "fxpullback.Largest": largest,
    "fxpullback.Rsqrt": rsqrt,
    "fxpullback.Variance": variance,
    "fxpullback.Deviation": deviation,
    "fxpullback.Linear": linear,
    "fxpullback.LayerNorm": layer_norm,
    "fxpullback.View": view,
}
