"""How every stage that copies a graph goes through it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from torch import fx

from fxpullback.graph.builder import Builder
from fxpullback.graph.ir import WHOLE, outputs
from fxpullback.graph.value import Value

Visit = Callable[[Builder, fx.Node, dict[fx.Node, Any]], Any]


@dataclass(frozen=True)
class Carried:
    """`factor` times `value` stands for a value of the graph before."""

    value: Any
    factor: float


def walk(gm: fx.GraphModule, visit: Visit, others: Collection[fx.Node] = ()) -> fx.GraphModule:
    """Build a graph from another one, node by node.

    Args:
        gm: the graph, left as it is.
        visit: called with the builder, a node that is neither input nor output, and what stands for the nodes before
            it; returns what stands for this one.
        others: nodes whose stand-in has another value than they, as what reads them was moved into it.

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
            if node not in others:
                hand_on(node, env[node])
    return tidy(builder.finish(tuple(env[n] for n in outputs(gm.graph))))


def hand_on(node: fx.Node, made: Any) -> None:
    """Note on what stands for a node which operators' values and cotangents it is, and with what factor."""
    held = made if isinstance(made, Carried) else Carried(made, 1.0)
    if not isinstance(held.value, Value):
        return
    meta = held.value.node.meta
    for key in WHOLE:
        if key in node.meta:
            mine = {name: factor * held.factor for name, factor in node.meta[key].items()}
            meta[key] = {**mine, **meta.get(key, {})}


def tidy(gm: fx.GraphModule) -> fx.GraphModule:
    """Drop dead nodes and the constants that nothing reads any more."""
    gm.graph.eliminate_dead_code()
    used = {str(node.target) for node in gm.graph.nodes if node.op == "get_attr"}
    for name in [*dict(gm.named_parameters()), *dict(gm.named_buffers())]:
        if name not in used:
            delattr(gm, name)
    gm.recompile()
    return gm
