"""Nodes put into a captured graph beside others, before there is a builder for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher

from fxpullback.graph.ir import input_nodes


def call_like(like: fx.Node, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A call with the meta of another node, and the fake value that it has; put where the graph inserts now."""
    node = like.graph.call_function(target, args, kwargs)
    node.meta = {key: value for key, value in like.meta.items() if key != "val"}
    fakes, named = fx.map_arg((args, kwargs), lambda n: n.meta["val"])
    with fake_mode(node), enable_python_dispatcher(), torch.no_grad():
        node.meta["val"] = target(*fakes, **named)
    return node


def fake_mode(node: fx.Node) -> Any:
    """The mode of the fake tensors that a node reads."""
    return next(n.meta["val"].fake_mode for n in input_nodes(node) if hasattr(n.meta["val"], "fake_mode"))
