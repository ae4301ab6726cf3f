"""Regions of a forward in which gradients or autocast are switched, as a part of the graph around them.

torch.export keeps such a region as a graph of its own, and its nodes lose their module and their line where it is taken
apart. Regions without gradients are explained through, and autocast that changes no type is none.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from fxpullback.capture.flatten import user_inputs
from fxpullback.capture.refused import low_precision
from fxpullback.graph.ir import GETITEM, arg, calls, node_argument

_GRADIENTS = torch.ops.higher_order.wrap_with_set_grad_enabled
_AUTOCAST = torch.ops.higher_order.wrap_with_autocast
_GRAPH_AT: dict[Any, int] = {_GRADIENTS: 1, _AUTOCAST: 4}
"""Which argument of a region is its graph; what it takes follows."""


def joined(program: ExportedProgram) -> ExportedProgram:
    """A program whose regions are joined with the graph around them; the program itself where it has none.

    Raises:
        CaptureError: autocast is on in a region, and has it compute in half precision what it is given in full.
    """
    if not any(node.target in _GRAPH_AT for node in calls(program.graph)):
        return program
    result = copy.copy(program)
    result._graph_module = copy.deepcopy(program.graph_module)
    given = user_inputs(program)[0].meta.get("val")
    _join(result.graph_module, isinstance(given, Tensor) and given.dtype in (torch.float32, torch.float64))
    return result


def _join(gm: fx.GraphModule, is_full: bool) -> None:
    """Join the regions of one graph, those inside them first."""
    for node in [node for node in calls(gm.graph) if node.target in _GRAPH_AT]:
        place = _GRAPH_AT[node.target]
        region = getattr(gm, str(node_argument(node, place).target))
        _join(region, is_full)
        if node.target is _AUTOCAST:
            low = low_precision(region) if arg(node, 2) else None
            if low is not None and is_full:
                raise low
            if low is not None:
                continue  # a model in half precision, whose regions stay what they are
        _inline(gm, node, region, list(node.args[place + 1 :]))
    gm.graph.eliminate_dead_code()
    gm.recompile()


def _inline(gm: fx.GraphModule, node: fx.Node, region: fx.GraphModule, given: list[Any]) -> None:
    """Put the nodes of a region in place of the node that runs it."""
    env: dict[fx.Node, Any] = {}
    inputs = iter(given)
    with gm.graph.inserting_before(node):
        for inner in region.graph.nodes:
            if inner.op == "placeholder":
                env[inner] = next(inputs)
            elif inner.op == "get_attr":
                name = f"{node.name}_{inner.target}".replace(".", "_")
                setattr(gm, name, getattr(region, str(inner.target)))
                env[inner] = gm.graph.get_attr(name)
                env[inner].meta = dict(inner.meta)
            elif inner.op != "output":
                env[inner] = gm.graph.node_copy(inner, lambda n: env[n])
    made = fx.map_arg(arg(region.graph.output_node(), 0), lambda n: env[n])
    for user in list(node.users):
        assert user.target is GETITEM
        user.replace_all_uses_with(made[arg(user, 1)])
        gm.graph.erase_node(user)
    gm.graph.erase_node(node)
