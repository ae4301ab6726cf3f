"""Stage 6: from the pullback graph in injected form to the graph that runs.

`inject` becomes its primal and `stop_gradient` nothing at all: from here on the graph is plain forward arithmetic. Then
come the named rewrites, each of which turns a form that the derivation gives into one that runs faster; what is
computed twice is computed once; and what nothing reads is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from torch import fx

from fxpullback.contract.errors import LowerError
from fxpullback.graph.builder import Builder
from fxpullback.graph.ir import INJECT, REWRITES_DONE, STOP_GRADIENT, arg, aten
from fxpullback.graph.rebuild import walk
from fxpullback.lowering.attention import without_empty_rows, write_out_attention
from fxpullback.lowering.cleanup import drop_no_ops, merge_equal, merge_factors, simplify
from fxpullback.lowering.convolution import scale_channels_first, shuffled, strided, unit_stride
from fxpullback.lowering.factors import carry_factors
from fxpullback.lowering.folding import fold_constants
from fxpullback.lowering.rewrite import Rewrite, replacing
from fxpullback.lowering.zeros import pad_late

LOG = logging.getLogger("fxpullback")

__all__ = ["REWRITES", "drop_no_ops", "erase_injections", "lower", "merge_equal", "simplify"]


def lower(step: fx.GraphModule, without: Collection[str] = ()) -> fx.GraphModule:
    """Lower the pullback graph of one step.

    Args:
        step: graph (input, cotangent) -> (logits, pullback) from `differentiate`.
        without: names of optional rewrites to leave out.

    Returns:
        Equivalent graph of plain forward operators, without `inject` and `stop_gradient`. Its meta says under
        `fxpullback.graph.ir.REWRITES_DONE` at how many places each rewrite was made.

    Raises:
        LowerError: `without` names what is no optional rewrite.
    """
    optional = [rewrite.name for rewrite in REWRITES if rewrite.optional]
    for name in without:
        if name not in optional:
            raise LowerError(f"there is no rewrite {name!r} to leave out; there are: {', '.join(optional)}.")
    done: dict[str, int] = {}
    graph = step
    for rewrite in REWRITES:
        if rewrite.name not in without:
            graph, done[rewrite.name] = rewrite.apply(graph)
            places = done[rewrite.name]
            LOG.info("lowering: %s, %d place%s: %s", rewrite.name, places, "" if places == 1 else "s", rewrite.what)
    graph = simplify(graph)
    graph.meta[REWRITES_DONE] = done
    return graph


def erase_injections(gm: fx.GraphModule) -> fx.GraphModule:
    """`inject(primal, soft)` is `primal` itself, with no arithmetic; `stop_gradient(x)` is `x`."""

    def visit(builder: Builder, node: fx.Node, env: dict[fx.Node, Any]) -> Any:
        if node.target in (INJECT, STOP_GRADIENT):
            return env[arg(node, 0)]
        return builder.copy(node, env)

    return walk(gm, visit)


def _erase(gm: fx.GraphModule) -> tuple[fx.GraphModule, int]:
    count = sum(node.target in (INJECT, STOP_GRADIENT) for node in gm.graph.nodes)
    return erase_injections(gm), count


def _fold(gm: fx.GraphModule) -> tuple[fx.GraphModule, int]:
    folded = fold_constants(gm)
    return folded, len(gm.graph.nodes) - len(folded.graph.nodes)


REWRITES = (
    Rewrite("injections", "an injection is its primal value, a stopped gradient its argument", _erase, False),
    Rewrite(
        "attention",
        "fused attention is written out, so that forward and adjoint share its weights",
        replacing({aten.scaled_dot_product_attention.default: write_out_attention}),
        False,
    ),
    Rewrite(
        "flipped-convolution",
        "the adjoint of a convolution of stride 1 is a convolution with the flipped weight",
        replacing({aten.convolution.default: unit_stride}),
    ),
    Rewrite("factors", "numbers that one value is multiplied by one after the other are one number", merge_factors),
    Rewrite("constants", "what depends on no input is computed", _fold, False),
    Rewrite(
        "full-rows",
        "attention rows that are never masked whole need no guard",
        replacing({aten.where.ScalarSelf: without_empty_rows}),
    ),
    Rewrite(
        "strided-convolution",
        "the adjoint of a strided convolution is a convolution of stride 1 and a spreading of its values",
        replacing({aten.convolution.default: strided}),
    ),
    Rewrite(
        "spread-channels",
        "channels that are spread over places are picked by a transposed convolution of one group a channel",
        replacing({aten.pixel_shuffle.default: shuffled}),
    ),
    Rewrite("late-zeros", "zeros around a part are put there behind the products that leave them zero", pad_late),
    Rewrite(
        "scales-first",
        "one factor a channel behind a gate is taken in by the weight of the convolution before the gate",
        scale_channels_first,
    ),
    Rewrite(
        "carried-factors",
        "temperatures and other numbers are carried along to a weight that takes them in",
        carry_factors,
    ),
)
"""The rewrites, in the order they are made."""
