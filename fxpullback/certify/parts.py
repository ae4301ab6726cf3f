"""Checks of the parts of a logit: that they sum to it, that each is right, and that gates add nothing where none may.

That the parts of a graph sum to the logit proves little: what gates add is the rest there. Here every part is found
operator by operator with autograd, and the sum of those is what has to come out.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, fx

from fxpullback.contract.certificate import Check, at_most
from fxpullback.graph.ir import INJECT, ORIGIN, calls, outputs
from fxpullback.graph.operators import OPERATORS, OperatorTable
from fxpullback.ledger import Ledger
from fxpullback.parts.carrying import carrying, is_affine
from fxpullback.vjp import TABLE, VJPTable

BOUND = 1e-9
"""float64 against float64, of the sum of what the parts are without their signs."""


def part_checks(found: Tensor, wanted: Tensor, logits: Tensor, u: Tensor, complete: bool) -> list[Check]:
    """Compare the parts of a graph with those of autograd.

    Args:
        found: the graph's, `[batch, 3]`.
        wanted: those found operator by operator.
        logits: `[batch, classes]`.
        u: the cotangent that entered, of the same shape.
        complete: whether input and biases have to sum to the logit by themselves.

    Returns:
        The checks, in float64; errors are relative to the sum of the absolute parts of a sample.
    """
    size = wanted.abs().sum(1).clamp(min=1e-300)
    explained = (logits * u).sum(1)
    checks = [
        at_most("parts: sum to what is explained, float64", _worst(wanted.sum(1) - explained, size), BOUND),
        at_most("parts: the graph's sum to what is explained, float64", _worst(found.sum(1) - explained, size), BOUND),
        at_most("parts: graph against autograd operator by operator, float64", _most(found - wanted, size), BOUND),
    ]
    if complete:
        left = _worst(explained - found[:, :2].sum(1), size)
        checks.append(at_most("parts: input and biases are all there is, float64", left, BOUND))
    return checks


def is_complete(
    model: fx.GraphModule, ledger: Ledger, vjps: VJPTable = TABLE, operators: OperatorTable = OPERATORS
) -> bool:
    """Whether gates can add nothing: every operator on the way is linear but for a constant, or homogeneous.

    A gate that a rule holds constant is linear. One that is softened is not, nor is a smooth one that is kept exact.

    Args:
        model: graph in injected form.
        ledger: what happened to every operator.
        vjps: the VJP rules.
        operators: what is true of every operator.
    """
    carried = carrying(model.graph, vjps)
    held = {row.node for row in ledger.rows if row.verdict == "frozen"}
    for node in _on_the_way(model.graph, carried):
        if node.target is INJECT:
            fits = node.meta.get(ORIGIN) in held
        else:
            fits = is_affine(node, carried, vjps) or _is_homogeneous(node, carried, operators)
        if not fits:
            return False
    return True


def _is_homogeneous(node: fx.Node, carried: Collection[fx.Node], operators: OperatorTable) -> bool:
    places = operators.at(node).homogeneous
    return bool(places) and all(node.args[i] in carried for i in places)


def _on_the_way(graph: fx.Graph, carried: Collection[fx.Node]) -> list[fx.Node]:
    """The operators that a cotangent of the logits reaches."""
    reached, found = set(outputs(graph)), list[fx.Node]()
    for node in reversed(list(calls(graph))):
        if node in reached and node in carried:
            found.append(node)
            reached |= {node.args[1]} if node.target is INJECT else set(node.all_input_nodes)  # type: ignore[arg-type]
    return found


def _worst(error: Tensor, size: Tensor) -> float:
    return float((error.abs() / size).max())


def _most(errors: Tensor, size: Tensor) -> float:
    return _worst(errors.abs().amax(1), size)
