"""Find products with a computed gate: z g(z) written out, and a product with the output of a sigmoid or the like."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from fxpullback.graph.ir import arg, aten, is_call, node_argument, operator_name, schema_arguments
from fxpullback.rules.gating import gated_product, self_gated, silu_by_hand
from fxpullback.rules.patterns.flow import Flow, Walk
from fxpullback.rules.patterns.pattern import Match, Pattern, WhyNot

_LONGEST = 14  # nodes of a gate z g(z), z included


@dataclass(frozen=True)
class _OwnGate:
    """A product x g(base), x being `scale` times base."""

    base: fx.Node
    scale: float
    gate: fx.Node

    @property
    def is_silu(self) -> bool:
        return self.scale == 1.0 and is_call(self.gate, aten.sigmoid.default) and self.gate.args[0] is self.base

    def match(self) -> Match:
        return Match({"x": self.base, "scale": self.scale}, {"gate_of": (self.base, self.gate)})


def find_silu(node: fx.Node, flow: Flow) -> Match | WhyNot | None:
    """x * sigmoid(x)."""
    found = _own_gate(node, flow)
    return found.match() if found is not None and found.is_silu else None


def find_self_gated(node: fx.Node, flow: Flow) -> Match | WhyNot | None:
    """x g(x), g made of pointwise operators with a bounded selector among them; `find_silu` has x * sigmoid(x)."""
    factors = flow.two_factors(node)
    if factors is None:
        return None
    found = _own_gate(node, flow)
    if found is None:
        return _why_not_self_gated(factors, flow)
    return WhyNot("it is x * sigmoid(x), which is left to silu") if found.is_silu else found.match()


def find_gated_product(node: fx.Node, flow: Flow) -> Match | WhyNot | None:
    """A product with the (re-laid, scaled, shifted) output of a bounded operator; x g(x) is left to the others."""
    if node.target is aten.addcmul.default:
        both = flow.active_pair(node, (1, 2)) is not None
        return WhyNot("both factors depend on the input, but this pattern looks into aten.mul alone") if both else None
    factors = flow.two_factors(node)
    if factors is None:
        return None
    if _own_gate(node, flow) is not None:
        return WhyNot("one factor is a function of the other alone, which is left to silu and self_gated")
    sources = [flow.back(factor, flow.known.affine) for factor in factors]
    gates = [_is_gate(source, flow) for source in sources]
    if not any(gates):
        return _why_not_gated(factors, sources)
    second = gates[1] and (not gates[0] or not _weaker(sources[1], sources[0]))
    x, gate = factors if second else factors[::-1]
    return Match({"x": x, "gate_value": gate})


def _own_gate(node: fx.Node, flow: Flow) -> _OwnGate | None:
    """The product as a gate of one of its own factors, or None."""
    factors = flow.two_factors(node)
    for x, gate in (factors, factors[::-1]) if factors is not None else ():
        base, scale = _base(x, flow)
        walk = _pointwise(base, gate, flow)
        if walk.stop is None and any(n.target in flow.known.selectors for n in walk.passed):
            return _OwnGate(base, scale, gate)
    return None


def _base(node: fx.Node, flow: Flow) -> tuple[fx.Node, float]:
    """The node that `node` is a constant multiple of, and the factor."""
    factor = 1.0
    while (number := flow.operators.number_of(node)) is not None and flow.only_input(node) is node.args[0]:
        factor *= number
        node = node_argument(node, 0)
    return node, factor


def _pointwise(base: fx.Node, gate: fx.Node, flow: Flow) -> Walk:
    """The walk from a gate back to what it may be a pointwise function of."""
    return flow.walk(gate, flow.known.pointwise, {base}.__contains__, _LONGEST)


def _is_gate(source: fx.Node, flow: Flow) -> bool:
    return source.target in flow.known.bounded or _hard_sigmoid_by_hand(source)


def _hard_sigmoid_by_hand(node: fx.Node) -> bool:
    """relu6(x + 3), as in relu6(x + 3) / 6: a ceiling at twice the shift."""
    if not is_call(node, aten.hardtanh.default) or not is_call(node.args[0], aten.add.Tensor, aten.add.Scalar):
        return False
    _, low, high = schema_arguments(node)
    shift = arg(node_argument(node, 0), 1)
    return low == 0 and isinstance(shift, int | float) and high == 2 * shift


def _weaker(candidate: fx.Node, other: fx.Node) -> bool:
    """Of two gates, tanh is the content and the other one the gate."""
    return is_call(candidate, aten.tanh.default) and not is_call(other, aten.tanh.default)


def _why_not_self_gated(factors: tuple[fx.Node, fx.Node], flow: Flow) -> WhyNot:
    if factors[0] is factors[1]:
        return WhyNot("both factors are the same value, from {}", factors[:1])
    walks = [_pointwise(_base(x, flow)[0], gate, flow) for x, gate in (factors[::-1], factors)]
    for walk in walks:
        if walk.stop is None:
            names = ", ".join(sorted({operator_name(n.target) for n in walk.passed})) or "none"
            return WhyNot(
                "one factor is a pointwise function of the other, but no sigmoid, hard-sigmoid, tanh, hard-tanh, "
                f"erf or ndtr is among its operators: {names}"
            )
    first, second = (walk.stop or factor for walk, factor in zip(walks, factors, strict=True))
    return WhyNot(
        "neither factor is a pointwise function of the other: followed back through pointwise operators, the first "
        "leads to {}, the second to {}",
        (first, second),
    )


def _why_not_gated(factors: tuple[fx.Node, fx.Node], sources: list[fx.Node]) -> WhyNot:
    text = "neither factor is the (scaled, shifted, re-laid) output of sigmoid, hard-sigmoid, tanh or softmax"
    if factors[0] is factors[1]:
        return WhyNot(f"{text}: both are the same value, from {{}}", (sources[0],))
    return WhyNot(f"{text}: the first comes from {{}}, the second from {{}}", (sources[0], sources[1]))


SILU = Pattern(silu_by_hand, find_silu, at=(aten.mul.Tensor,))
SELF_GATED = Pattern(self_gated, find_self_gated, at=(aten.mul.Tensor,))
GATED_PRODUCT = Pattern(gated_product, find_gated_product, at=(aten.mul.Tensor, aten.addcmul.default))
