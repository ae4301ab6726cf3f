"""Find thresholds that are written as a choice by comparison: ReLU, leaky ReLU and shrinkage by hand.

torch itself takes `F.hardshrink` and `F.softshrink` apart into such a choice while it exports a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx

from fxpullback.graph.ir import arg, aten, is_call, node_argument, schema_arguments
from fxpullback.rules.gating import relu_by_hand, shrink_by_hand
from fxpullback.rules.patterns.flow import Flow
from fxpullback.rules.patterns.operators import VOCABULARY
from fxpullback.rules.patterns.pattern import Match, Pattern, WhyNot


@dataclass(frozen=True)
class _Choice:
    """`above` where `compared` is above `bound`, else `below`; of a product with a comparison, `below` is zero."""

    compared: fx.Node
    bound: Any
    above: Any
    below: Any

    @property
    def passes_all_above_zero(self) -> bool:
        return self.above is self.compared and bool(self.bound == 0)


def find_relu(node: fx.Node, flow: Flow) -> Match | WhyNot | None:
    """x where x > 0, else a multiple of x or zero; `x * (x > 0)` too."""
    choice = _choice(node, flow)
    if choice is None or choice.compared not in flow.active:
        return None
    slope = _slope(choice.below, choice.compared, flow) if choice.passes_all_above_zero else None
    if slope is not None:
        return Match({"x": choice.compared, "slope": slope})
    return None if is_call(choice.compared, aten.abs.default) else _why_no_relu(choice)


def find_shrink(node: fx.Node, flow: Flow) -> Match | WhyNot | None:
    """x, or x - sign(x) width, where |x| > width, else zero."""
    choice = None if node.target is aten.mul.Tensor else _choice(node, flow)
    if choice is None or choice.compared not in flow.active or not is_call(choice.compared, aten.abs.default):
        return None
    x, width = node_argument(choice.compared, 0), choice.bound
    if not isinstance(width, int | float):
        return WhyNot("the size is compared with no number")
    if _slope(choice.below, x, flow) != 0:
        return WhyNot(f"what it gives within {width} of 0 is not zero")
    if choice.above is not x and not _shrunk(choice.above, x, width):
        return WhyNot(f"what it passes on is neither the value x nor x - sign(x) * {width}")
    return Match({"x": x, "width": float(width)})


def _choice(node: fx.Node, flow: Flow) -> _Choice | None:
    """A choice by comparison with a number, or a product with such a comparison."""
    if node.target in flow.known.choices:
        condition, chosen, other = schema_arguments(node)
    elif node.target is aten.masked_fill.Scalar:
        other, condition, chosen = schema_arguments(node)
    else:
        return _product(node.args[0], node.args[1], flow)
    if not is_call(condition, *flow.known.above, *flow.known.below):
        return None
    if condition.target in flow.known.below:
        chosen, other = other, chosen
    return _Choice(node_argument(condition, 0), condition.args[1], chosen, other)


def _product(a: Any, b: Any, flow: Flow) -> _Choice | None:
    """`x * (x > 0)`, the comparison cast or as it is; of two comparisons, the one of the other factor with zero."""
    found: list[_Choice] = []
    for x, condition in ((a, b), (b, a)):
        held = arg(condition, 0) if is_call(condition, aten._to_copy.default) else condition
        if is_call(held, *flow.known.above):
            found.append(_Choice(node_argument(held, 0), held.args[1], x, 0))
    return next((choice for choice in found if choice.passes_all_above_zero), found[0] if found else None)


def _why_no_relu(choice: _Choice) -> WhyNot:
    if choice.above is not choice.compared:
        return WhyNot("what it passes on is not the value that is compared, which comes from {}", (choice.compared,))
    if choice.bound != 0:
        return WhyNot(f"the value is compared with {choice.bound}, not with 0")
    return WhyNot("what it gives below 0 is neither zero nor a constant multiple of the value")


def _slope(other: Any, x: Any, flow: Flow) -> float | None:
    """a where a value is a x, 0 where it is zero; None for anything else."""
    if isinstance(other, int | float):
        return 0.0 if other == 0 else None
    if not isinstance(other, fx.Node):
        return None
    if other.target in flow.known.zeros:
        return 0.0
    if other.op == "get_attr":
        held = getattr(other.graph.owning_module, str(other.target), None)
        return 0.0 if held is not None and not bool(held.any()) else None
    if other.target is aten.mul.Tensor and other.args[0] is x and isinstance(other.args[1], int | float):
        return float(other.args[1])
    return None


def _shrunk(value: Any, x: fx.Node, width: float) -> bool:
    """Whether a value is x - sign(x) width."""
    if not is_call(value, aten.sub.Tensor) or value.args[0] is not x:
        return False
    taken = value.args[1]
    if not is_call(taken, aten.mul.Tensor) or taken.args[1] != width:
        return False
    sign = taken.args[0]
    return is_call(sign, aten.sign.default) and sign.args[0] is x


_ENDS = (*VOCABULARY.choices, aten.masked_fill.Scalar)
RELU = Pattern(relu_by_hand, find_relu, at=(*_ENDS, aten.mul.Tensor))
SHRINK = Pattern(shrink_by_hand, find_shrink, at=_ENDS)
