"""How large a cotangent enters a half-precision pullback: scaled by a power of two, and back in float32 at the end.

A pullback is linear in its cotangent, so that scaling changes nothing but the rounding; and pullbacks are small numbers
(1e-3 and less), which float16 would flush to zero. The scale is measured for each file.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from fxpullback.certify.fresh import Looks, fresh_target
from fxpullback.graph.builder import Builder
from fxpullback.graph.inputs import Inputs
from fxpullback.graph.ir import ORIGIN, depends_on, explained, extra_inputs, given_inputs, outputs
from fxpullback.graph.module import Graph
from fxpullback.graph.operators import OPERATORS, OperatorTable, Trait
from fxpullback.graph.rebuild import Site, append, tidy
from fxpullback.half.islands import float32_nodes
from fxpullback.target import cotangent_of

if TYPE_CHECKING:
    from fxpullback.compiled import Compiled

HEADROOM = 16.0
"""How far below the largest float16 the largest cotangent that was measured is put: other inputs have larger ones."""

LARGEST = 2.0**15
"""Largest scale: the entries of a cotangent are at most one, whatever the input, and need no more room than that."""

SAMPLES = 3
SEED = 1234


def measured_scale(pb: Compiled) -> float:
    """The power of two that puts the largest cotangent in the pullback `HEADROOM` below float16's largest number.

    Measured in float32 on the example and on fresh inputs, with targets of the kind the graph takes. What the graph
    takes as a raw cotangent is brought to a largest entry of one before it is scaled, here as in the graph.

    Args:
        pb: what was compiled.

    Returns:
        The scale; 1 where every cotangent is zero.
    """
    largest = 0.0
    drawn = Looks.of(pb).draw(SAMPLES, SEED, pb.example)
    given = fresh_target(pb.target, SAMPLES, pb.classes, drawn.x, SEED + 1)
    for inputs, target in ((drawn, given), *_example(pb, given)):
        with torch.no_grad():
            u = cotangent_of(pb.target, target, pb.captured(*inputs)[0])
        u = u / u.abs().amax().clamp(min=1e-30) if pb.target == "cotangent" else u
        largest = max(largest, largest_cotangent(pb.step, inputs, u, pb.extensions.operators()))
    if not 0 < largest < math.inf:
        return 1.0
    room = torch.finfo(torch.float16).max / HEADROOM / largest
    return min(LARGEST, float(2.0 ** math.floor(math.log2(room))))


def _example(pb: Compiled, given: Tensor | None) -> list[tuple[Inputs, Tensor | None]]:
    """The example itself, where it has no extras that other samples were compiled with."""
    return [] if pb.extras else [(Inputs(pb.example), None if given is None else given[:1])]


def largest_cotangent(step: fx.GraphModule, inputs: Inputs, u: Tensor, operators: OperatorTable = OPERATORS) -> float:
    """Largest absolute value that float16 has to hold of what the pullback graph computes of the cotangent `u`."""
    recorder = _Largest(step, operators)
    with torch.no_grad():
        recorder.run(*inputs, u)
    return recorder.largest


class _Largest(fx.Interpreter):
    def __init__(self, step: fx.GraphModule, operators: OperatorTable) -> None:
        super().__init__(step)
        of_cotangent = depends_on(step.graph, given_inputs(step))
        self.computed = (of_cotangent - _moved(step, operators)) & _narrow(step, operators)
        self.largest = 0.0

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self.computed and isinstance(result, Tensor) and result.is_floating_point() and result.numel():
            self.largest = max(self.largest, float(result.abs().max()))
        return result


def _moved(step: fx.GraphModule, operators: OperatorTable) -> set[fx.Node]:
    """The cotangent that is given, and what only lays it out anew."""
    found = set(given_inputs(step))
    for node in step.graph.nodes:
        if Trait.MOVES in operators.at(node) and node.args[0] in found:
            found.add(node)
    return found


def _narrow(step: fx.GraphModule, operators: OperatorTable) -> set[fx.Node]:
    """What float16 has to hold: what is computed in it, and what of float32 is read by that."""
    wide = float32_nodes(step, torch.float16, operators)
    return {n for n in step.graph.nodes if n not in wide or any(u not in wide and u.op != "output" for u in n.users)}


def scale_cotangent(step: fx.GraphModule, scale: float, *, any_size: bool = False) -> Graph:
    """Multiply the cotangent of a pullback graph by `scale`, and divide pullback and maps by it, in float32.

    Args:
        step: graph (input, extras, cotangent) -> (logits, pullback, maps) with all of them in float32.
        scale: a power of two, so that scaling itself rounds nothing.
        any_size: bring each sample's cotangent to a largest entry of one first: it may be of any size.

    Returns:
        The graph with the scaling around it.
    """
    builder = Builder(step)
    (cotangent,) = given_inputs(step)
    given = (explained(step.graph), *extra_inputs(step), cotangent)
    env: dict[fx.Node, Any] = {n: builder.placeholder(str(n.target), n.meta["val"]) for n in given}
    undo: Any = None

    def scaled(site: Site) -> Any:
        nonlocal undo
        if undo is None and cotangent in site.node.all_input_nodes:  # not before the logits, which it may be made of
            env[cotangent], undo = _scaled(env[cotangent], scale, any_size)
        return site.copy()

    append(builder, step, env, scaled, moved=None)
    logits, *linear = (env[n] for n in outputs(step.graph))
    with builder.provenance("seed_scale_undone", **{ORIGIN: "seed_scale"}):
        scaled_back = [one * (_as_wide(undo, one) if any_size else undo) for one in linear]
    return tidy(builder.finish((logits, *scaled_back)))


def _as_wide(undo: Any, like: Any) -> Any:
    """One number for each sample, with as many axes as what it is multiplied by."""
    return undo.reshape([undo.shape[0], *[1] * (like.ndim - 1)])


def _scaled(cotangent: Any, scale: float, any_size: bool) -> tuple[Any, Any]:
    """The cotangent that enters, and what the pullback is multiplied by."""
    with cotangent.builder.provenance("seed_scale", **{ORIGIN: "seed_scale"}):
        if not any_size:
            return cotangent * scale, 1 / scale
        size = torch.amax(torch.abs(cotangent), [1], True).clamp(min=1e-30)
        return cotangent / size * scale, size * (1 / scale)
