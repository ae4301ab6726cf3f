"""The same graph in another floating-point type."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx


def in_float64(gm: fx.GraphModule) -> fx.GraphModule:
    """A copy of a graph with its constants, and the types its operators name, in float64."""
    wide = copy.deepcopy(gm).to(torch.float64)
    for node in wide.graph.nodes:
        if node.op == "call_function":
            node.args = _widen(node.args)
            node.kwargs = _widen(node.kwargs)
    wide.recompile()
    return wide


def _widen(tree: Any) -> Any:
    if isinstance(tree, tuple | list):
        return type(tree)(_widen(t) for t in tree)
    if isinstance(tree, dict):
        return {k: _widen(v) for k, v in tree.items()}
    return torch.float64 if tree in (torch.float32, torch.float16, torch.bfloat16) else tree
