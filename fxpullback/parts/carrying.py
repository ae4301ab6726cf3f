"""Which values pass a cotangent on to the input. Every other value is a constant to the pullback."""

from __future__ import annotations

from collections.abc import Callable

from torch import fx

from fxpullback.graph.ir import INJECT, calls, explained, input_nodes, is_float_tensor
from fxpullback.vjp import TABLE, VJPTable, kind_of


def carrying(
    graph: fx.Graph, vjps: VJPTable = TABLE, is_float: Callable[[fx.Node], bool] = is_float_tensor
) -> set[fx.Node]:
    """The values that depend on the input by a path on which nothing is held constant.

    The mean that a rule holds in a layer norm depends on the input and is not among them, nor is a gate that is held,
    nor the primal value of an injection.

    Args:
        graph: a graph in injected form.
        vjps: the VJP rules.
        is_float: whether a node holds floating-point numbers; a graph read from a file does not say so by itself.
    """
    found = {explained(graph)}
    for node in calls(graph):
        rule = vjps.get(node.target)
        constant = rule is not None and rule.kind == "constant"
        sources = [node.args[1]] if node.target is INJECT else input_nodes(node)
        if is_float(node) and not constant and any(source in found for source in sources):
            found.add(node)
    return found


def is_affine(node: fx.Node, carried: set[fx.Node], vjps: VJPTable = TABLE) -> bool:
    """Whether an operator is linear in what it is given of the values that carry a cotangent, but for a constant.

    An injection is not: what it passes on is not what it holds.
    """
    return node.target is not INJECT and kind_of(node, carried, vjps) == "linear"
