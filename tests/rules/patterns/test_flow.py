"""What matchers ask of a graph."""

from __future__ import annotations

import re

import torch
from torch import fx

from fxpullback.graph.ir import GETITEM, aten, calls
from fxpullback.rules.patterns import Flow, WhyNot
from tests.helpers import draw, graph_of

WEIGHT = draw(4, 4)


def graph() -> tuple[Flow, dict[str, fx.Node]]:
    """The nodes of a small graph, by operator; the last where there are several."""
    captured = graph_of(
        lambda x: torch.where(x > 1, torch.tanh((x @ WEIGHT).unbind(1)[0] * 2 + 1)[:, None] * (x + x.exp()), 0.0), 4, 4
    ).graph
    return Flow(captured), {str(node.target): node for node in calls(captured)} | {
        "x": next(node for node in captured.nodes if node.op == "placeholder")
    }


def test_reached_and_active() -> None:
    flow, nodes = graph()
    compared = nodes[str(aten.gt.Scalar)]
    assert compared in flow.reached
    assert compared not in flow.active
    assert nodes[str(aten.exp.default)] in flow.active
    assert flow.is_choice(nodes[str(aten.where.ScalarOther)])
    assert not flow.is_choice(nodes[str(aten.exp.default)])


def test_inputs() -> None:
    flow, nodes = graph()
    product, tanh = nodes[str(aten.mul.Tensor)], nodes[str(aten.tanh.default)]
    assert flow.only_input(nodes[str(aten.matmul.default)]) is nodes["x"]
    assert flow.two_factors(nodes[str(aten.matmul.default)]) is None
    assert flow.two_factors(product) == product.args[:2]
    assert flow.only_input(product) is None
    assert flow.two_factors(tanh) is None
    assert flow.active_inputs(tanh) == [tanh.args[0]]
    assert flow.active_pair(product, (1, 2)) is None


def test_back_passes_operators_with_one_active_argument() -> None:
    flow, nodes = graph()
    tanh, product = nodes[str(aten.tanh.default)], nodes[str(aten.mul.Tensor)]
    before = tanh.args[0]
    assert isinstance(before, fx.Node)
    assert flow.back(before, flow.known.affine) is nodes[str(aten.matmul.default)]
    assert flow.back(before, flow.known.relayout) is before
    assert flow.back(product, flow.known.affine) is product
    assert flow.back(nodes[str(GETITEM)], flow.known.relayout) is nodes[str(aten.matmul.default)]


def test_walk_follows_all_active_arguments() -> None:
    flow, nodes = graph()
    x, total = nodes["x"], nodes[str(aten.mul.Tensor)].args[1]
    assert isinstance(total, fx.Node)
    walk = flow.walk(total, flow.known.pointwise, lambda n: n is x, 3)
    assert walk.passed == {total, nodes[str(aten.exp.default)]}
    assert walk.ends == {x}
    assert walk.stop is None
    assert flow.walk(total, flow.known.pointwise, lambda n: n is x, 2).stop is not None
    assert flow.walk(total, flow.known.affine, lambda n: n is x, 9).stop is nodes[str(aten.exp.default)]
    assert flow.walk(x, flow.known.pointwise, lambda n: n is x, 1).passed == set()


def test_sentences_name_nodes() -> None:
    _, nodes = graph()
    why = WhyNot("it lies between {} and {}", (nodes["x"], nodes[str(aten.exp.default)]))
    assert why.sentence.startswith("it lies between the input and aten.exp at ")
    assert re.search(r" at node exp \(\w+\.py:\d+\)$", why.sentence)
    assert WhyNot("a set {1} of numbers").sentence == "a set {1} of numbers"
