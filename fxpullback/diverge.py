"""Find the first node at which two graphs of the same model part."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from fxpullback.inputs import Inputs
from fxpullback.ir import COTANGENT_OF, calls, given_inputs, where


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps the tensor of every node."""

    def __init__(self, gm: fx.GraphModule, *, leaf: bool = False) -> None:
        super().__init__(gm, garbage_collect_values=False)
        self.values: dict[str, Tensor] = {}
        self.leaf = leaf

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            if self.leaf and result.requires_grad:
                result.retain_grad()
            self.values[n.name] = result
        return result


def _gap(found: Tensor, wanted: Tensor) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    scale = float(wanted.abs().max()) or 1.0
    gap = float((found.double() - wanted.double()).abs().max()) / scale
    return gap if gap == gap else float("inf")


def first_forward_difference(wanted: fx.GraphModule, found: fx.GraphModule, inputs: Inputs, bound: float) -> str:
    """Name the first operator of `wanted` whose value at the node of that name in `found` is off by over `bound`."""
    with torch.no_grad():
        left, right = _Recorder(wanted), _Recorder(found)
        left.run(*inputs)
        x, seeds = inputs.x, given_inputs(found)
        right.run(*inputs, *[torch.zeros(x.shape[0], *n.meta["val"].shape[1:]).to(x) for n in seeds])
    for node in calls(wanted.graph):
        if node.name in left.values and node.name in right.values and left.values[node.name].is_floating_point():
            gap = _gap(right.values[node.name], left.values[node.name])
            if gap > bound:
                return f"first difference at {where(node)} (node {node.name}): {gap:.2e} of its largest entry"
    return "no operator that both graphs have differs: look at the last one"


def first_pullback_difference(
    injected: fx.GraphModule, step: fx.GraphModule, inputs: Inputs, cotangent: Tensor, bound: float
) -> str:
    """Name the first operator, from the logits backwards, whose cotangent in `step` differs from autograd's."""
    leaf = inputs.x.detach().clone().requires_grad_(True)
    oracle, graph = _Recorder(injected, leaf=True), _Recorder(step)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        logits = oracle.run(*inputs.at(leaf))[0]
        (logits * cotangent).sum().backward()
    with torch.no_grad():
        graph.run(*inputs, cotangent)
    carriers = {name: node.name for node in step.graph.nodes for name in node.meta.get(COTANGENT_OF, ())}
    last = "the logits"
    for node in reversed(list(calls(injected.graph))):
        gradient = oracle.values[node.name].grad if node.name in oracle.values else None
        carrier = carriers.get(node.name)
        if gradient is None or carrier not in graph.values:
            continue
        gap = _gap(graph.values[carrier], gradient)
        if gap > bound:
            return (
                f"first difference behind {last}: the cotangent of {where(node)} (node {node.name}) is off by {gap:.2e}"
            )
        last = f"{where(node)} (node {node.name})"
    return f"all cotangents the walk recorded agree; the difference is behind {last}"
