"""Blocking gates: operators whose value the logits read and whose derivative is zero, so that no cotangent passes them.

Rounding, the sign, a comparison taken as a number, the place of a largest value that is looked up. A comparison that
only chooses between values which carry a cotangent, as in `torch.where(x > 0, x, 0)`, is none: the chosen value carries
it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import fx

from fxpullback.graph.ir import AUTHORED, STOP_GRADIENT, aten, calls, input_nodes, is_float_tensor, where
from fxpullback.rules.patterns.flow import Flow
from fxpullback.vjp import TABLE, VJPTable, kind_of

REASON = "blocks: its derivative is zero, no cotangent passes it"

_OF_THE_SHAPE_ALONE = (
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.empty_like.default,
)
"""Operators whose value does not depend on their argument's: there is nothing to block."""


def blocks_here(node: fx.Node, flow: Flow, vjps: VJPTable = TABLE) -> bool:
    """Whether no cotangent passes an operator although its value depends on the picture."""
    if node not in flow.active or node.target in (STOP_GRADIENT, AUTHORED, *_OF_THE_SHAPE_ALONE):
        return False
    if flow.active_inputs(node):
        return kind_of(node, flow.active, vjps) == "constant"
    return bool(_steps_read(node, flow))


def blocking(graph: fx.Graph, live: Collection[str], flow: Flow, vjps: VJPTable = TABLE) -> set[fx.Node]:
    """The operators of a captured graph that stop a cotangent which arrives.

    Args:
        graph: the captured graph.
        live: names of the operators that some cotangent of the logits reaches.
        flow: what depends on the explained input.
        vjps: the VJP rules, which say whose derivative is zero.

    Returns:
        The operators that make a step of numbers: `round`, or the comparison whose truth values are taken as numbers
        later on.
    """
    stopped = [node for node in calls(graph) if node.name in live and blocks_here(node, flow, vjps)]
    return {step for node in stopped for step in _steps(node, flow)}


def said_of(nodes: Iterable[fx.Node]) -> str:
    """The sentence of an error that names operators which block."""
    named = sorted(nodes, key=lambda node: node.name)
    more = f" ({len(named)} such operators)" if len(named) > 1 else ""
    return (
        f"{where(named[0])} has a derivative of zero{more}, so no cotangent passes it. If the model was trained with "
        "an estimator that passes one, as straight-through, write that operator as a torch.autograd.Function with this "
        "backward: it is honoured, docs/models.md. Or explain an output in front of it: output=."
    )


def _steps(node: fx.Node, flow: Flow) -> set[fx.Node]:
    return {node} if flow.active_inputs(node) else _steps_read(node, flow)


def _steps_read(node: fx.Node, flow: Flow) -> set[fx.Node]:
    """The operators that made whole numbers or truth values of the picture's own, which `node` makes numbers of."""
    found, seen = set[fx.Node](), set[fx.Node]()
    waiting = [source for source in input_nodes(node) if source in flow.reached and source not in flow.active]
    while waiting:
        step = waiting.pop()
        if step in seen or step.target in _OF_THE_SHAPE_ALONE:
            continue
        seen.add(step)
        if any(is_float_tensor(source) and source in flow.active for source in input_nodes(step)):
            found.add(step)
        waiting += [source for source in input_nodes(step) if source in flow.reached and source not in flow.active]
    return found
