"""Complex values that depend on weights alone: computed once, by torch itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from fxpullback.graph.ir import attribute, input_nodes


class Constants:
    """The nodes of a graph that no input and no free size reaches, and their values.

    Args:
        gm: the graph.
    """

    def __init__(self, gm: fx.GraphModule) -> None:
        self.gm = gm
        self.values: dict[fx.Node, Any] = {}
        self.nodes: set[fx.Node] = set()
        for node in gm.graph.nodes:
            if node.op == "get_attr" or (_is_settled(node) and all(n in self.nodes for n in input_nodes(node))):
                self.nodes.add(node)

    def __contains__(self, node: fx.Node) -> bool:
        return node in self.nodes

    def value(self, node: fx.Node) -> Any:
        """What a constant node holds."""
        if node not in self.values:
            if node.op == "get_attr":
                self.values[node] = attribute(self.gm, str(node.target)).detach()
            else:
                args, kwargs = fx.map_arg((node.args, node.kwargs), self.value)
                target: Any = node.target
                with torch.no_grad():
                    self.values[node] = target(*args, **kwargs)
        return self.values[node]


def _is_settled(node: fx.Node) -> bool:
    """Whether a call gives the same on every run, if its arguments are the same."""
    if node.op != "call_function":
        return False
    drawn = isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags
    held = node.meta.get("val")
    parts = held if isinstance(held, tuple | list) else (held,)
    fixed = all(isinstance(part, Tensor) and all(isinstance(n, int) for n in part.shape) for part in parts)
    return fixed and not drawn
