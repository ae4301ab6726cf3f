"""Find attention that is written out: a softmax whose output meets values in a matrix product."""

from __future__ import annotations

from torch import fx

from fxpullback.graph.fake_quantized import FAKE_QUANTIZE
from fxpullback.graph.ir import aten, is_call
from fxpullback.rules.attention import attention_by_hand
from fxpullback.rules.patterns.flow import Flow
from fxpullback.rules.patterns.operators import OTHER_MATRIX_PRODUCTS
from fxpullback.rules.patterns.pattern import Match, Pattern, WhyNot

_SOFTMAX = aten.softmax.int
_MATMUL = aten.matmul.default


def find_attention(node: fx.Node, flow: Flow) -> Match | WhyNot | None:
    """The attention that ends at a matrix product; for a softmax, why its output ends in none."""
    if node.target is _SOFTMAX:
        return _why_no_product(node, flow)
    if node.target in OTHER_MATRIX_PRODUCTS:
        return _why_no_matmul(node, flow)
    factors = flow.two_factors(node)
    if factors is None:
        return None
    if factors[0] is factors[1]:
        return WhyNot("both factors are the same value, from {}", factors[:1])
    routes = [route for route in (_route(factor, flow) for factor in factors) if route]
    if not routes:
        ends = tuple(flow.back(factor, flow.known.weight_steps) for factor in factors)
        return WhyNot("neither factor comes from a softmax: the first comes from {}, the second from {}", ends)
    route = max(routes, key=lambda route: [*route, node])  # of two softmaxes, the later one routes
    start = _scores(route[0], flow)
    return Match({"scores": start}, {"routing": (start, route[-1]), "product": (route[-1], node)})


def _route(weights: fx.Node, flow: Flow) -> list[fx.Node]:
    """From the softmax to `weights`, through re-layouts, scaling and head mixing; empty where there is no softmax."""
    route = [weights]
    while route[0].target is not _SOFTMAX:
        before = flow.only_input(route[0])
        if before is None or not _passes(route[0], flow):
            return []
        route.insert(0, before)
    return route


def _passes(node: fx.Node, flow: Flow) -> bool:
    """Whether weights stay weights: re-laid, scaled, rounded to levels, or heads mixed by a constant matrix."""
    steps = flow.known.weight_steps | {FAKE_QUANTIZE}
    return node.target in steps or (node.target is _MATMUL and flow.two_factors(node) is None)


def _scores(softmax: fx.Node, flow: Flow) -> fx.Node:
    """The node T divides: the scaled q k^T before any mask or bias is added, or the softmax's own input."""
    first = softmax.args[0]
    assert isinstance(first, fx.Node)
    node = first
    while node.op == "call_function" and node.target is not _MATMUL:
        following = _towards_product(node, flow)
        if following is None:
            return first
        node = following
    return node if node.target is _MATMUL else first


def _towards_product(node: fx.Node, flow: Flow) -> fx.Node | None:
    candidates = set(flow.active_inputs(node))
    if node.target in {aten.add.Tensor, aten.sub.Tensor} and len(candidates) == 2:
        reaching = [c for c in candidates if is_call(flow.back(c, flow.known.affine), _MATMUL)]
        return reaching[0] if len(reaching) == 1 else None
    if node.target in flow.known.affine | flow.known.masking | {FAKE_QUANTIZE}:
        return candidates.pop() if len(candidates) == 1 else None
    return None


def _why_no_product(softmax: fx.Node, flow: Flow) -> WhyNot | None:
    """Where the output of a softmax goes, unless that is a matrix product with values."""
    waiting, ends = [softmax], dict[fx.Node, None]()
    while waiting:
        node = waiting.pop()
        for user in node.users:
            if user.target is _MATMUL and flow.two_factors(user) and user.args[0] is not user.args[1]:
                return None
            if flow.only_input(user) is node and _passes(user, flow):
                waiting.append(user)
            else:
                ends[user] = None
    text = "its output meets no second factor that depends on the input in a matrix product"
    if any(end.op == "output" for end in ends):
        return WhyNot(f"{text}: it is an output of the model")
    others = " and to others" if len(ends) > 1 else ""
    return WhyNot(f"{text}: it goes to {{}}{others}", tuple(ends)[:1]) if ends else WhyNot(text)


def _why_no_matmul(node: fx.Node, flow: Flow) -> WhyNot | None:
    """Why a product of matrices that holds more than a product is not looked into."""
    if flow.active_pair(node, OTHER_MATRIX_PRODUCTS[node.target]) is None:
        return None
    return WhyNot("both factors depend on the input, but this pattern looks into aten.matmul alone")


ATTENTION = Pattern(attention_by_hand, find_attention, at=(_MATMUL, _SOFTMAX, *OTHER_MATRIX_PRODUCTS))
