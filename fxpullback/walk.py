"""How every stage that copies a graph goes through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from fxpullback.ir import outputs
from fxpullback.trace import Builder

Visit = Callable[[Builder, fx.Node, dict[fx.Node, Any]], Any]


def walk(gm: fx.GraphModule, visit: Visit) -> fx.GraphModule:
    """Build a graph from another one, node by node.

    Args:
        gm: the graph, left as it is.
        visit: called with the builder, a node that is neither input nor output, and what stands for the nodes before
            it; returns what stands for this one.

    Returns:
        The new graph with its dead nodes dropped; inputs, outputs and the module's meta are taken over.
    """
    builder = Builder(gm)
    env: dict[fx.Node, Any] = {}
    for node in gm.graph.nodes:
        if node.op == "placeholder":
            env[node] = builder.placeholder(str(node.target), node.meta["val"])
        elif node.op != "output":
            env[node] = visit(builder, node, env)
    return tidy(builder.finish(tuple(env[n] for n in outputs(gm.graph))))


def tidy(gm: fx.GraphModule) -> fx.GraphModule:
    """Drop dead nodes and the constants that nothing reads any more."""
    gm.graph.eliminate_dead_code()
    used = {str(node.target) for node in gm.graph.nodes if node.op == "get_attr"}
    for name in [*dict(gm.named_parameters()), *dict(gm.named_buffers())]:
        if name not in used:
            delattr(gm, name)
    gm.recompile()
    return gm
