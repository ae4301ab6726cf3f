"""Find the first node at which two graphs of the same model part."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from fxpullback.graph.inputs import Inputs
from fxpullback.graph.ir import COTANGENT_OF, HOLDS, calls, given_inputs, where


class Recorder(fx.Interpreter):
    """Runs a graph and keeps the tensors of some nodes, or of all.

    Attributes:
        values: the tensors, by the names of the nodes.
    """

    def __init__(self, gm: fx.GraphModule, kept: Collection[str] | None = None, *, leaf: bool = False) -> None:
        super().__init__(gm)
        self.values: dict[str, Tensor] = {}
        self.kept = kept
        self.leaf = leaf

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and (self.kept is None or n.name in self.kept):
            if self.leaf and result.requires_grad:
                result.retain_grad()
            self.values[n.name] = result
        return result


class _Comparer(fx.Interpreter):
    """Runs a graph and compares its nodes, times a factor, with wanted tensors as they come.

    What a node is compared with stands in its meta under `key`; in a graph that has no such meta it is its own name.

    Attributes:
        gaps: how far each is off, relative to the largest entry wanted, by the name of the operator compared with.
    """

    def __init__(self, gm: fx.GraphModule, key: str, wanted: dict[str, Tensor]) -> None:
        super().__init__(gm)
        self.wanted = wanted
        self.gaps: dict[str, float] = {}
        said = {n: n.meta[key] for n in gm.graph.nodes if key in n.meta}
        self.compared = said or {n: {n.name: 1.0} for n in gm.graph.nodes}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        for name, factor in self.compared.get(n, {}).items():
            if isinstance(result, Tensor) and name in self.wanted:
                self.gaps[name] = _gap(result * factor, self.wanted[name])
        return result


def _gap(found: Tensor, wanted: Tensor) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    scale = float(wanted.abs().max()) or 1.0
    gap = float((found.double() - wanted.double()).abs().max()) / scale
    return gap if gap == gap else float("inf")


def first_forward_difference(wanted: fx.GraphModule, found: fx.GraphModule, inputs: Inputs, bound: float) -> str:
    """Name the first operator of `wanted` whose value in `found` is off by more than `bound`.

    A lowered graph says which of its nodes hold an operator's value and with what factor; elsewhere nodes of one name
    are compared.
    """
    with torch.no_grad():
        oracle = Recorder(wanted)
        oracle.run(*inputs)
        values = {name: value for name, value in oracle.values.items() if value.is_floating_point()}
        graph = _Comparer(found, HOLDS, values)
        x, seeds = inputs.x, given_inputs(found)
        graph.run(*inputs, *[torch.zeros(x.shape[0], *n.meta["val"].shape[1:]).to(x) for n in seeds])
    for node in calls(wanted.graph):
        if graph.gaps.get(node.name, 0.0) > bound:
            gap = graph.gaps[node.name]
            return f"first difference at {where(node)} (node {node.name}): {gap:.2e} of its largest entry"
    return "no operator that both graphs have differs: look at the last one"


def first_pullback_difference(
    injected: fx.GraphModule, step: fx.GraphModule, inputs: Inputs, cotangent: Tensor, bound: float
) -> str:
    """Name the first operator, from the logits backwards, whose cotangent in `step` differs from autograd's."""
    leaf = inputs.x.detach().clone().requires_grad_(True)
    recorded = {name for node in step.graph.nodes for name in node.meta.get(COTANGENT_OF, {})}
    oracle = Recorder(injected, recorded, leaf=True)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        logits = oracle.run(*inputs.at(leaf))[0]
        (logits * cotangent).sum().backward()
    wanted = {name: value.grad for name, value in oracle.values.items() if value.grad is not None}
    del logits, oracle
    graph = _Comparer(step, COTANGENT_OF, wanted)
    with torch.no_grad():
        graph.run(*inputs, cotangent)
    last = "the logits"
    for node in reversed(list(calls(injected.graph))):
        gap = graph.gaps.get(node.name)
        if gap is None:
            continue
        if gap > bound:
            return (
                f"first difference behind {last}: the cotangent of {where(node)} (node {node.name}) is off by {gap:.2e}"
            )
        last = f"{where(node)} (node {node.name})"
    return f"all cotangents the walk recorded agree; the difference is behind {last}"
