"""Find thresholds that are written as a choice by comparison: ReLU, leaky ReLU and shrinkage by hand.

torch itself takes `F.hardshrink` and `F.softshrink` apart into such a choice while it exports a model.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from fxpullback.graph.ir import arg, aten, schema_arguments

ABOVE = {aten.gt.Scalar, aten.ge.Scalar}
BELOW = {aten.lt.Scalar, aten.le.Scalar}
CHOICES = {aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther}
_ZEROS = {aten.zeros_like.default, aten.zeros.default}


def threshold(node: fx.Node) -> tuple[str, dict[str, Any]] | None:
    """The pattern rule and its arguments, where a node ends such a gate."""
    if node.target in CHOICES:
        condition, chosen, other = schema_arguments(node)
    elif node.target is aten.masked_fill.Scalar:
        other, condition, chosen = schema_arguments(node)
    elif node.target is aten.mul.Tensor:
        return _product(*node.args[:2])
    else:
        return None
    if not isinstance(condition, fx.Node) or condition.target not in ABOVE | BELOW:
        return None
    if condition.target in BELOW:
        chosen, other = other, chosen
    x, at = condition.args[:2]
    if at == 0 and chosen is x:
        slope = _slope(other, x)
        return None if slope is None else ("relu_by_hand", {"x": x, "slope": slope})
    return _shrinkage(x, at, chosen, other)


def _product(a: Any, b: Any) -> tuple[str, dict[str, Any]] | None:
    """`x * (x > 0)`."""
    for x, condition in ((a, b), (b, a)):
        held = condition
        if isinstance(held, fx.Node) and held.target is aten._to_copy.default:
            held = arg(held, 0)
        if isinstance(held, fx.Node) and held.target in ABOVE and held.args[0] is x and held.args[1] == 0:
            return "relu_by_hand", {"x": x, "slope": 0.0}
    return None


def _slope(other: Any, x: Any) -> float | None:
    """a where a value is a x, 0 where it is zero; None for anything else."""
    if isinstance(other, int | float):
        return 0.0 if other == 0 else None
    if not isinstance(other, fx.Node):
        return None
    if other.target in _ZEROS:
        return 0.0
    if other.op == "get_attr":
        held = getattr(other.graph.owning_module, str(other.target), None)
        return 0.0 if held is not None and not bool(held.any()) else None
    if other.target is aten.mul.Tensor and other.args[0] is x and isinstance(other.args[1], int | float):
        return float(other.args[1])
    return None


def _shrinkage(size: Any, width: Any, chosen: Any, other: Any) -> tuple[str, dict[str, Any]] | None:
    """A choice by |x| > width between x, or x - sign(x) width, and zero."""
    if not isinstance(size, fx.Node) or size.target is not aten.abs.default or not isinstance(width, int | float):
        return None
    x = arg(size, 0)
    if _slope(other, x) != 0 or not (chosen is x or _shrunk(chosen, x, width)):
        return None
    return "shrink_by_hand", {"x": x, "width": float(width)}


def _shrunk(value: Any, x: fx.Node, width: float) -> bool:
    if not isinstance(value, fx.Node) or value.target is not aten.sub.Tensor or value.args[0] is not x:
        return False
    taken = value.args[1]
    if not isinstance(taken, fx.Node) or taken.target is not aten.mul.Tensor or taken.args[1] != width:
        return False
    sign = taken.args[0]
    return isinstance(sign, fx.Node) and sign.target is aten.sign.default and sign.args[0] is x
