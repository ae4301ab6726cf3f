"""What must hold of a graph after each stage. Every check raises `InvariantError` and names the node."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxpullback.contract.errors import InvariantError
from fxpullback.graph.canonical import canonical_name, takes_gradient
from fxpullback.graph.ir import (
    GETITEM,
    INJECT,
    ORIGIN,
    STOP_GRADIENT,
    calls,
    depends_on,
    explained,
    given_inputs,
    is_size,
    outputs,
    placeholders,
    where,
)
from fxpullback.graph.module import signature_of
from fxpullback.graph.shapes import same_shape


def check_captured(gm: fx.GraphModule) -> None:
    """Functional ATen operators in canonical spelling, the inputs that are declared, a symbolic batch."""
    check_graph(gm)
    if given_inputs(gm):
        found, declared = len(placeholders(gm.graph)), len(signature_of(gm).extras)
        raise InvariantError(f"a captured graph has one input and {declared} extras, this one has {found} inputs.")
    for node in calls(gm.graph):
        if node.target is INJECT:
            raise InvariantError(f"{where(node)} ({node.name}) may not stand in a captured graph.")


def check_rewritten(gm: fx.GraphModule, injections: int) -> None:
    """As captured, with exactly `injections` gates injected."""
    check_graph(gm)
    check_injections(gm, injections)


def check_injections(gm: fx.GraphModule, expected: int) -> None:
    """The number of injects: one that is lost turns a soft adjoint into the plain gradient, and no forward sees it."""
    found = sum(node.target is INJECT for node in calls(gm.graph))
    if found != expected:
        raise InvariantError(f"the graph holds {found} injections, the ledger {expected}: a soft adjoint was lost.")


def check_folded(before: fx.GraphModule, after: fx.GraphModule, injections: int) -> None:
    """As rewritten, and every gate that held something constant before still does."""
    check_rewritten(after, injections)
    check_held(before, after)


def check_held(before: fx.GraphModule, after: fx.GraphModule) -> None:
    """Every gate that held something constant still does: with its `stop_gradient` gone, an injection carries the
    derivative of its soft expression, and no forward sees that either."""
    lost = _held(before) - _held(after)
    if lost:
        raise InvariantError(f"the soft expression of {', '.join(sorted(lost))} lost its stop_gradient.")


def _held(gm: fx.GraphModule) -> set[str]:
    """Gates whose injection depends on a `stop_gradient` of its own."""
    found: dict[Any, set[str]] = {INJECT: set(), STOP_GRADIENT: set()}
    for node in calls(gm.graph):
        if node.target in found:
            found[node.target].add(str(node.meta.get(ORIGIN)))
    return found[INJECT] & found[STOP_GRADIENT]


def check_differentiated(gm: fx.GraphModule, injections: int) -> None:
    """Two inputs and two outputs, the pullback of the shape of the input, and every injection still there."""
    check_graph(gm)
    check_injections(gm, injections)
    check_outputs(gm)


def check_lowered(gm: fx.GraphModule) -> None:
    """Plain forward operators alone."""
    check_graph(gm)
    check_outputs(gm)
    for node in calls(gm.graph):
        if node.target in (INJECT, STOP_GRADIENT):
            raise InvariantError(f"{where(node)} ({node.name}) is left after lowering.")


def check_outputs(gm: fx.GraphModule) -> None:
    """Outputs are named, and the pullback depends on the cotangent and has the shape of the input."""
    names = signature_of(gm).outputs
    results = outputs(gm.graph)
    if len(names) != len(results):
        raise InvariantError(f"the graph has {len(results)} outputs and the names {names}.")
    found = dict(zip(names, results, strict=True))
    source, given = explained(gm.graph), given_inputs(gm)
    pullback, like = found["pullback"].meta["val"], source.meta["val"]
    if not same_shape(pullback.shape, like.shape):
        shapes = f"{list(pullback.shape)} and {list(like.shape)}"
        raise InvariantError(f"the pullback and the input have different shapes: {shapes}.")
    if pullback.dtype != like.dtype:
        raise InvariantError(f"the pullback and the input have different types: {pullback.dtype} and {like.dtype}.")
    if given and found["pullback"] not in depends_on(gm.graph, given):
        raise InvariantError(f"the pullback does not depend on {given[0].name}: it explains nothing.")


def check_graph(gm: fx.GraphModule) -> None:
    """Well-formed, functional, typed, in canonical spelling, with a symbolic batch and nothing of autograd's own."""
    gm.graph.lint()
    for node in gm.graph.nodes:
        if node.op != "output":
            _check_node(node)
    source = explained(gm.graph).meta["val"]
    for node in outputs(gm.graph):
        val = node.meta["val"]
        if not isinstance(val.shape[0], torch.SymInt) or val.shape[0].node.expr != source.shape[0].node.expr:
            raise InvariantError(f"{where(node)}: the batch of output {list(val.shape)} is not that of the input.")


def _check_node(node: fx.Node) -> None:
    if "val" not in node.meta:
        raise InvariantError(f"{where(node)} ({node.name}) has no fake value: its shape is unknown.")
    if node.op in ("call_module", "call_method"):
        raise InvariantError(f"{node.name} is a {node.op}, not a functional operator.")
    if node.op != "call_function" or is_size(node) or node.target is GETITEM:
        return
    if not isinstance(node.target, torch._ops.OpOverload):
        raise InvariantError(f"{node.name} calls {node.target}, which is no ATen operator.")
    if node.target._schema.is_mutable:
        raise InvariantError(f"{where(node)} works in place.")
    if takes_gradient(node.target):
        raise InvariantError(f"{where(node)} is a derivative of autograd's own and no forward operator.")
    canonical = canonical_name(node)
    if canonical is not None:
        raise InvariantError(f"{where(node)} is not the canonical spelling of its operator; {canonical} is.")
