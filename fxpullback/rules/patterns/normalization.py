"""Find normalisations that are written out: a product or quotient with a statistic, and the centring in front of it."""

from __future__ import annotations

import math
from typing import Any

from torch import fx

from fxpullback.graph.ir import GETITEM, arg, aten, is_call
from fxpullback.rules.normalization import centring_by_hand, normalization_by_hand
from fxpullback.rules.patterns.flow import Flow, Walk
from fxpullback.rules.patterns.operators import MEANS
from fxpullback.rules.patterns.pattern import Match, Pattern, WhyNot

_LONGEST = 24  # nodes between a value and the statistic it is made of
_STATISTIC = "a norm, a deviation, the root of a variance or of a mean of squares"


def find_normalization(node: fx.Node, flow: Flow) -> Match | WhyNot | None:
    """x * s or x / s where s is a statistic of the input: the root of a variance, a norm."""
    factors = flow.two_factors(node)
    if factors is None:
        return None
    divide = node.target is aten.div.Tensor
    if factors[0] is factors[1]:
        return WhyNot("the divisor is the value itself, from {}", factors[:1]) if divide else None
    for x, statistic in (factors,) if divide else (factors, factors[::-1]):
        if _is_statistic(statistic, flow) and not _is_statistic(x, flow):
            return Match({"x": x, "statistic": statistic, "divide": divide})
    return _why_not(factors, divide, flow)


def find_centring(node: fx.Node, flow: Flow) -> Match | WhyNot | None:
    """The x - mean(x) in front of a normalisation written out."""
    factors = flow.two_factors(node)
    if factors is None or not _is_mean_of(factors[1], factors[0], flow):
        return None
    if not _is_normalized(node, flow):
        return WhyNot("no product or quotient with a statistic follows on this difference of a value and its mean")
    return Match({"x": factors[0], "mean": factors[1]})


def _walk(node: fx.Node, flow: Flow) -> Walk:
    return flow.walk(
        node,
        flow.known.statistic_steps,
        lambda n: n.target in flow.known.statistics or _is_mean_square(n) or _is_squared_mean(n, flow),
        _LONGEST,
    )


def _is_statistic(node: fx.Node, flow: Flow) -> bool:
    walk = _walk(node, flow)
    if walk.stop is not None or (walk.ends and all(_is_squared_mean(n, flow) for n in walk.ends)):
        return False
    return any(n.target in flow.known.roots or _is_root_power(n) for n in walk.passed | walk.ends)


def _is_root_power(node: fx.Node) -> bool:
    return is_call(node, aten.pow.Tensor_Scalar) and node.args[1] in (0.5, -0.5)


def _is_mean_square(node: fx.Node) -> bool:
    """mean(x^2) or sum(x^2)."""
    if not is_call(node, *MEANS):
        return False
    return _squared(node.args[0]) is not None


def _is_squared_mean(node: fx.Node, flow: Flow) -> bool:
    """mean(x)^2, which mean(x^2) - mean(x)^2 has for a variance."""
    mean = _squared(node)
    return mean is not None and is_call(flow.back(mean, flow.known.relayout | flow.known.scaling), *MEANS)


def _squared(node: Any) -> fx.Node | None:
    """What a node is the square of, however that is written."""
    power = is_call(node, aten.pow.Tensor_Scalar) and arg(node, 1) == 2
    product = is_call(node, aten.mul.Tensor) and node.args[0] is node.args[1]
    if not (power or product or is_call(node, aten.square.default)):
        return None
    return node.args[0] if isinstance(node.args[0], fx.Node) else None


def _is_mean_of(mean: fx.Node, x: fx.Node, flow: Flow) -> bool:
    node = flow.back(mean, flow.known.relayout - {GETITEM})
    if is_call(node, GETITEM):
        pair = node.args[0]
        return bool(arg(node, 1) == 1) and is_call(pair, aten.var_mean.correction) and pair.args[0] is x
    return (is_call(node, aten.mean.dim) and node.args[0] is x) or _is_sum_over_count(node, x, flow)


def _is_sum_over_count(node: fx.Node, x: fx.Node, flow: Flow) -> bool:
    """sum(x) / n, or times 1 / n, of n entries."""
    if not is_call(node, aten.mul.Tensor, aten.div.Tensor) or not isinstance(node.args[0], fx.Node):
        return False
    total, factor = flow.back(node.args[0], flow.known.relayout), arg(node, 1)
    if not is_call(total, aten.sum.dim_IntList) or total.args[0] is not x or not isinstance(factor, int | float):
        return False
    shape = x.meta["val"].shape
    extents = [shape[axis] for axis in arg(total, 1)]
    if not all(isinstance(extent, int) for extent in extents):
        return False
    count = math.prod(extents)
    return bool(
        math.isclose(count * (factor if node.target is aten.mul.Tensor else 1 / (factor or 1)), 1, rel_tol=1e-5)
    )


def _is_normalized(node: fx.Node, flow: Flow) -> bool:
    """Whether a product or quotient with a statistic takes this value, re-laid or as it is."""
    waiting = [node]
    while waiting:
        value = waiting.pop()
        for user in value.users:
            found = NORMALIZATION.match(user, flow)
            if found is not None and flow.back(found.arguments["x"], flow.known.relayout) is node:
                return True
            if user.target in flow.known.relayout and flow.only_input(user) is value:
                waiting.append(user)
    return False


def _why_not(factors: tuple[fx.Node, fx.Node], divide: bool, flow: Flow) -> WhyNot | None:
    if all(_is_statistic(factor, flow) for factor in factors):
        return WhyNot(f"both are statistics ({_STATISTIC}), and nothing is left to be normalised")
    stops = [_walk(factor, flow).stop for factor in factors]
    if divide:
        text = f"the divisor is no statistic ({_STATISTIC}): "
        return WhyNot(text + "it has no root") if stops[1] is None else WhyNot(text + "it comes from {}", (stops[1],))
    if not any(_is_near(factor, flow) for factor in factors):
        return None  # a product without a mean square or a root in it: nobody takes it for a normalisation
    told = ["has no root" if stop is None else "comes from {}" for stop in stops]
    text = f"neither factor is a statistic ({_STATISTIC}): the first {told[0]}, the second {told[1]}"
    return WhyNot(text, tuple(stop for stop in stops if stop is not None))


def _is_near(factor: fx.Node, flow: Flow) -> bool:
    """Whether a factor that is no statistic has a part of one in it."""
    walk = _walk(factor, flow)
    return bool(walk.ends) or any(n.target in flow.known.roots or _is_root_power(n) for n in walk.passed)


NORMALIZATION = Pattern(normalization_by_hand, find_normalization, at=(aten.mul.Tensor, aten.div.Tensor))
CENTRING = Pattern(centring_by_hand, find_centring, at=(aten.sub.Tensor,))
