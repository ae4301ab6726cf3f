"""Find the gates that are written as several operators: attention, gated products, normalisations.

Every function looks at a captured graph and returns matches; it changes nothing. A match names the node that will be
injected, the pattern rule, and the nodes between which the rule's callables replay the model's own operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import fx

from fxpullback.graph.ir import (
    GETITEM,
    arg,
    aten,
    depends_on,
    explained,
    input_nodes,
    is_call,
    is_float_tensor,
    node_argument,
    schema_arguments,
)
from fxpullback.rules.thresholds import threshold

RELAYOUT: set[Callable[..., Any]] = {
    aten.reshape.default,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.expand.default,
    aten.expand_as.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.unbind.int,
    aten.unflatten.int,
    aten._to_copy.default,
    aten.clone.default,
    aten.repeat.default,
    aten.view_as.default,
    aten.constant_pad_nd.default,
    GETITEM,
}
SCALING = {aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar, aten.neg.default}
SHIFTING = {aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar, aten.rsub.Scalar}
PRODUCTS = {aten.mul.Tensor}
BOUNDED = {aten.sigmoid.default, aten.hardsigmoid.default, aten.tanh.default, aten.softmax.int}
POINTWISE = (
    BOUNDED
    | SCALING
    | SHIFTING
    | {aten.softplus.default, aten.exp.default, aten.log1p.default, aten.hardtanh.default, aten.erf.default}
    | {aten.special_ndtr.default}
    | {aten.pow.Tensor_Scalar, aten.square.default, aten._to_copy.default}
) - {aten.softmax.int}
_SELECTORS = {
    aten.sigmoid.default,
    aten.hardsigmoid.default,
    aten.tanh.default,
    aten.hardtanh.default,
    aten.erf.default,
    aten.special_ndtr.default,
}


@dataclass(frozen=True)
class Match:
    """One gate written as several operators.

    Attributes:
        node: the captured node whose value is injected.
        rule: name of the pattern rule.
        arguments: captured nodes (and plain values) the rule takes.
        replays: name -> (start, end): callables that recompute `end` from another value at `start`.
    """

    node: fx.Node
    rule: str
    arguments: dict[str, Any]
    replays: dict[str, tuple[fx.Node, fx.Node]]


class Flow:
    """What depends on the input, for the searches below."""

    def __init__(self, graph: fx.Graph) -> None:
        inputs = [explained(graph)]
        self.reached = depends_on(graph, inputs)
        self.active = {n for n in self.reached if is_float_tensor(n)}

    def is_choice(self, node: fx.Node) -> bool:
        """Whether a comparison or an order of the input's own values decides what the node passes on."""
        return any(n in self.reached and n not in self.active for n in input_nodes(node))

    def active_inputs(self, node: fx.Node) -> list[fx.Node]:
        return [n for n in input_nodes(node) if n in self.active]

    def only_input(self, node: fx.Node) -> fx.Node | None:
        """The one active argument, or None where there are several."""
        found = set(self.active_inputs(node))
        return found.pop() if len(found) == 1 else None

    def two_factors(self, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
        a, b = node.args[:2] if len(node.args) >= 2 else (None, None)
        if isinstance(a, fx.Node) and isinstance(b, fx.Node) and a in self.active and b in self.active:
            return a, b
        return None


def find(graph: fx.Graph) -> Iterator[Match]:
    """All matches, in the order of the graph; a node is matched once."""
    flow = Flow(graph)
    attention = {m.node: m for node in graph.nodes if is_call(node, aten.softmax.int) for m in _attention(node, flow)}
    routing = {m.replays["routing"][1] for m in attention.values()}
    normal: dict[fx.Node, Match] = {}
    for node in graph.nodes:
        match = (
            attention.get(node) or _threshold(node, flow) or _gated(node, flow, routing) or _normalization(node, flow)
        )
        if match is None:
            continue
        if match.rule == "normalization_by_hand":
            normal[node] = match
        yield match
    yield from _centrings(normal, flow)


def _threshold(node: fx.Node, flow: Flow) -> Match | None:
    found = threshold(node) if node in flow.active else None
    return Match(node, found[0], found[1], {}) if found and found[1]["x"] in flow.active else None


def _attention(softmax: fx.Node, flow: Flow) -> Iterator[Match]:
    if softmax not in flow.active:
        return
    for end, product in _products_of(softmax, flow):
        start = _scores(softmax, flow)
        yield Match(
            product,
            "attention_by_hand",
            {"scores": start},
            {"routing": (start, end), "product": (end, product)},
        )


_MIXING = {aten.linear.default, aten.convolution.default, aten.native_layer_norm.default}


def _products_of(node: fx.Node, flow: Flow) -> Iterator[tuple[fx.Node, fx.Node]]:
    """(weights, matrix product) pairs that the softmax reaches through re-layouts, scaling and head mixing."""
    for user in list(node.users):
        if is_call(user, aten.matmul.default):
            if flow.two_factors(user) and user.args[0] is not user.args[1]:
                yield node, user
            elif flow.only_input(user) is node and not flow.two_factors(user):
                yield from _products_of(user, flow)  # heads mixed by a constant matrix
        elif user.target in RELAYOUT | SCALING | _MIXING and flow.only_input(user) is node:
            yield from _products_of(user, flow)


def _scores(softmax: fx.Node, flow: Flow) -> fx.Node:
    """The node T divides: the scaled q k^T before any mask or bias is added, or the softmax's own input."""
    first = softmax.args[0]
    assert isinstance(first, fx.Node)
    node, last = first, first
    while node.op == "call_function":
        if is_call(node, aten.matmul.default):
            return node
        following = _towards_product(node, flow)
        if following is None:
            return last
        node = following
    return last


def _towards_product(node: fx.Node, flow: Flow) -> fx.Node | None:
    candidates = set(flow.active_inputs(node))
    if node.target in {aten.add.Tensor, aten.sub.Tensor} and len(candidates) == 2:
        reaching = [c for c in candidates if _reaches_product(c, flow)]
        return reaching[0] if len(reaching) == 1 else None
    if node.target in RELAYOUT | SCALING | SHIFTING | {aten.masked_fill.Scalar, aten.where.self}:
        return candidates.pop() if len(candidates) == 1 else None
    return None


def _reaches_product(node: fx.Node, flow: Flow) -> bool:
    while node.op == "call_function" and not is_call(node, aten.matmul.default):
        following = flow.only_input(node)
        if following is None or node.target not in RELAYOUT | SCALING | SHIFTING:
            return False
        node = following
    return is_call(node, aten.matmul.default)


def _gated(node: fx.Node, flow: Flow, routing: set[fx.Node]) -> Match | None:
    factors = flow.two_factors(node) if is_call(node, *PRODUCTS) else None
    if factors is None:
        return None
    for x, gate in (factors, factors[::-1]):
        match = _self_gated(node, x, gate, flow)
        if match is not None:
            return match
    sources = [_gate_source(f, flow, routing) for f in factors]
    if sources[0] is None and sources[1] is None:
        return None
    second = sources[1] is not None and (sources[0] is None or not _weaker(sources[1], sources[0]))
    x, gate = factors if second else factors[::-1]
    return Match(node, "gated_product", {"x": x, "gate_value": gate}, {})


def _weaker(candidate: fx.Node, other: fx.Node) -> bool:
    """Of two gates, tanh is the content and the other one the gate."""
    return is_call(candidate, aten.tanh.default) and not is_call(other, aten.tanh.default)


def _gate_source(node: fx.Node, flow: Flow, routing: set[fx.Node]) -> fx.Node | None:
    """The sigmoid, hard-sigmoid, tanh or softmax that a factor is the (re-laid, scaled, shifted) output of."""
    while node.op == "call_function":
        if node.target in BOUNDED or _hard_sigmoid_by_hand(node, flow):
            return node
        following = flow.only_input(node)
        if following is None or node.target not in RELAYOUT | SCALING | SHIFTING:
            return None
        node = following
    return None


def _hard_sigmoid_by_hand(node: fx.Node, flow: Flow) -> bool:
    """relu6(x + 3), as in relu6(x + 3) / 6: a ceiling at twice the shift."""
    if not is_call(node, aten.hardtanh.default) or not is_call(node.args[0], aten.add.Tensor, aten.add.Scalar):
        return False
    _, low, high = schema_arguments(node)
    shift = arg(node_argument(node, 0), 1)
    return low == 0 and isinstance(shift, int | float) and high == 2 * shift


def _base(node: fx.Node, flow: Flow) -> tuple[fx.Node, float]:
    """The node that `node` is a constant multiple of, and the factor."""
    factor = 1.0
    while is_call(node, aten.mul.Tensor, aten.div.Tensor) and flow.only_input(node) is node.args[0]:
        constant = node.args[1]
        if not isinstance(constant, int | float):
            break
        factor = factor * constant if node.target is aten.mul.Tensor else factor / constant
        node = node_argument(node, 0)
    return node, factor


def _self_gated(node: fx.Node, x: fx.Node, gate: fx.Node, flow: Flow) -> Match | None:
    """x g(x) written out, g made of pointwise operators with a bounded selector among them."""
    base, factor = _base(x, flow)
    inner = _pointwise_between(base, gate, flow)
    if inner is None or not any(n.target in _SELECTORS for n in inner):
        return None
    plain = factor == 1.0 and is_call(gate, aten.sigmoid.default) and gate.args[0] is base
    rule = "silu_by_hand" if plain else "self_gated"
    return Match(node, rule, {"x": base, "scale": factor}, {"gate_of": (base, gate)})


def _pointwise_between(start: fx.Node, end: fx.Node, flow: Flow) -> set[fx.Node] | None:
    """Nodes of a pointwise function of `start` alone that ends at `end`; None where it is no such function."""
    inner: set[fx.Node] = set()
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node is start or node in inner:
            continue
        if node.op != "call_function" or node.target not in POINTWISE or len(inner) > 12:
            return None
        inner.add(node)
        waiting += flow.active_inputs(node)
    return inner


_STATISTICS = {
    aten.linalg_vector_norm.default,
    aten.norm.ScalarOpt_dim,
    aten.var.correction,
    aten.var.dim,
    aten.std.correction,
    aten.std.dim,
    aten.var_mean.correction,
}
_ROOTS = {aten.rsqrt.default, aten.sqrt.default, aten.linalg_vector_norm.default, aten.norm.ScalarOpt_dim}
_ROOTS |= {aten.std.correction, aten.std.dim}
_MEANS = {aten.mean.dim, aten.sum.dim_IntList}
_STATISTIC_STEPS = (
    RELAYOUT
    | SCALING
    | SHIFTING
    | _ROOTS
    | {aten.reciprocal.default, aten.clamp_min.default, aten.clamp.default, aten.pow.Tensor_Scalar, aten.relu.default}
    | {aten.mean.dim, aten.maximum.default}
)


def _normalization(node: fx.Node, flow: Flow) -> Match | None:
    """x * s or x / s where s is a statistic of the input: the root of a variance, a norm."""
    if not is_call(node, aten.mul.Tensor, aten.div.Tensor):
        return None
    factors = flow.two_factors(node)
    if factors is None or factors[0] is factors[1]:
        return None
    divide = node.target is aten.div.Tensor
    for x, statistic in (factors,) if divide else (factors, factors[::-1]):
        if _is_statistic(statistic, flow) and not _is_statistic(x, flow):
            return Match(node, "normalization_by_hand", {"x": x, "statistic": statistic, "divide": divide}, {})
    return None


def _is_statistic(node: fx.Node, flow: Flow) -> bool:
    rooted, waiting, seen = False, [node], set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op != "call_function" or len(seen) > 24:
            return False
        rooted |= node.target in _ROOTS or _is_root_power(node)
        if node.target in _STATISTICS or _is_mean_square(node):
            continue
        if node.target not in _STATISTIC_STEPS:
            return False
        waiting += flow.active_inputs(node)
    return rooted


def _is_root_power(node: fx.Node) -> bool:
    return is_call(node, aten.pow.Tensor_Scalar) and node.args[1] in (0.5, -0.5)


def _is_mean_square(node: fx.Node) -> bool:
    """mean(x^2) or sum(x^2)."""
    if not is_call(node, *_MEANS):
        return False
    square = node.args[0]
    if is_call(square, aten.pow.Tensor_Scalar):
        return bool(arg(square, 1) == 2)
    product = is_call(square, aten.mul.Tensor) and square.args[0] is square.args[1]
    return bool(product) or is_call(square, aten.square.default)


def _centrings(normal: dict[fx.Node, Match], flow: Flow) -> Iterator[Match]:
    """The x - mean(x) in front of a normalisation written out."""
    found: set[fx.Node] = set()
    for match in normal.values():
        node: Any = match.arguments["x"]
        while is_call(node, *RELAYOUT) and flow.only_input(node) is not None:
            node = flow.only_input(node)
        if not is_call(node, aten.sub.Tensor) or node in found:
            continue
        factors = flow.two_factors(node)
        if factors is not None and _is_mean_of(factors[1], factors[0], flow):
            found.add(node)
            yield Match(node, "centring_by_hand", {"x": factors[0], "mean": factors[1]}, {})


def _is_mean_of(mean: fx.Node, x: fx.Node, flow: Flow) -> bool:
    node: fx.Node | None = mean
    while node is not None and node.target in RELAYOUT - {GETITEM}:
        node = flow.only_input(node)
    if is_call(node, GETITEM):
        pair = node.args[0]
        return bool(arg(node, 1) == 1) and is_call(pair, aten.var_mean.correction) and pair.args[0] is x
    return is_call(node, aten.mean.dim) and node.args[0] is x
