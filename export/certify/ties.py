"""Ties of `topk` and `sort`: torch says of equal values nothing about which come first, ONNX says the first.

Which of them torch takes depends on its version, the device and the sizes; a file can agree with it on values alone. So
what a file is checked against takes the first of equal values too. A maximum takes the first in both.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx

from fxpullback.graph.ir import aten


def first_of_equals(gm: fx.GraphModule) -> fx.GraphModule:
    """A graph in which the first of equal values comes first, as in a file; the same one where nothing is sorted."""
    if not any(node.target in _IN_ORDER for node in gm.graph.nodes):
        return gm
    graph = copy.deepcopy(gm.graph)
    for node in graph.nodes:
        node.target = _IN_ORDER.get(node.target, node.target)
    return fx.GraphModule(gm, graph)


def _sort(x: Tensor, dim: int = -1, descending: bool = False) -> tuple[Tensor, ...]:
    """`aten.sort` that leaves equal values in their order."""
    return tuple(torch.sort(x, dim=dim, descending=descending, stable=True))


def _topk(x: Tensor, k: int, dim: int = -1, largest: bool = True, ordered: bool = True) -> tuple[Tensor, ...]:
    """`aten.topk` by such a sort."""
    return tuple(part.narrow(dim, 0, k) for part in _sort(x, dim, largest))


_IN_ORDER = {aten.topk.default: _topk, aten.sort.default: _sort}
