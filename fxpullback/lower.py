"""Stage 6: from the pullback graph in injected form to the graph that runs.

`inject` becomes its primal and `stop_gradient` nothing at all: from here on the graph is plain forward arithmetic. Then
come the named rewrites, each of which turns a form that the derivation gives into one that runs faster; what is
computed twice is computed once; and what nothing reads is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from torch import fx

from fxpullback.contract.errors import LowerError
from fxpullback.graph.compilation import Compilation
from fxpullback.graph.fake_quantized import FAKE_QUANTIZE, FAKE_QUANTIZE_MASK
from fxpullback.graph.ir import INJECT, STOP_GRADIENT, arg, aten
from fxpullback.graph.module import Graph
from fxpullback.graph.rebuild import by_operator, rebuild
from fxpullback.lowering.attention import without_empty_rows, write_out_attention
from fxpullback.lowering.cleanup import drop_no_ops, eliminate_common_subexpressions, merge_factors, simplify
from fxpullback.lowering.convolution import scale_channels_first, shuffled, strided, unit_stride
from fxpullback.lowering.factors import carry_factors
from fxpullback.lowering.folding import fold_constants
from fxpullback.lowering.quantisation import write_out_levels, write_out_mask
from fxpullback.lowering.rewrite import Rewrite, in_order, replacing
from fxpullback.lowering.zeros import pad_late

LOG = logging.getLogger("fxpullback")

__all__ = ["REWRITES", "drop_no_ops", "eliminate_common_subexpressions", "erase_injections", "lower", "simplify"]


def lower(
    step: fx.GraphModule,
    without: Collection[str] = (),
    compilation: Compilation | None = None,
    rewrites: Sequence[Rewrite] = (),
) -> tuple[Graph, dict[str, int]]:
    """Lower the pullback graph of one step.

    Args:
        step: graph (input, cotangent) -> (logits, pullback) from `differentiate`.
        without: names of optional rewrites to leave out.
        compilation: what the stages of one compilation share.
        rewrites: further rewrites than those of `REWRITES`, made where their `after` and `before` say.

    Returns:
        Equivalent graph of plain forward operators, without `inject` and `stop_gradient`; and at how many places each
        rewrite was made, by its name.

    Raises:
        LowerError: `without` names what is no optional rewrite, or rewrites cannot be put in order.
    """
    order = in_order(REWRITES, rewrites)
    optional = [rewrite.name for rewrite in order if rewrite.optional]
    for name in without:
        if name not in optional:
            raise LowerError(f"there is no rewrite {name!r} to leave out; there are: {', '.join(optional)}.")
    done: dict[str, int] = {}
    graph = step
    for rewrite in order:
        if rewrite.name not in without:
            graph, done[rewrite.name] = rewrite.apply(graph, compilation)
            places = done[rewrite.name]
            LOG.info("lowering: %s, %d place%s: %s", rewrite.name, places, "" if places == 1 else "s", rewrite.what)
    return simplify(graph, compilation), done


def erase_injections(gm: fx.GraphModule, compilation: Compilation | None = None) -> Graph:
    """`inject(primal, soft)` is `primal` itself, with no arithmetic; `stop_gradient(x)` is `x`."""
    erase = by_operator(dict.fromkeys((INJECT, STOP_GRADIENT), lambda site: site.env[arg(site.node, 0)]))
    return rebuild(gm, erase, compilation)


def _erase(gm: fx.GraphModule, compilation: Compilation | None) -> tuple[Graph, int]:
    count = sum(node.target in (INJECT, STOP_GRADIENT) for node in gm.graph.nodes)
    return erase_injections(gm, compilation), count


def _fold(gm: fx.GraphModule, compilation: Compilation | None) -> tuple[Graph, int]:
    folded = fold_constants(gm, compilation)
    return folded, len(gm.graph.nodes) - len(folded.graph.nodes)


FIRST = ("injections",)

REWRITES = in_order(
    (
        Rewrite("injections", "an injection is its primal value, a stopped gradient its argument", _erase, False),
        Rewrite(
            "attention",
            "fused attention is written out, so that forward and adjoint share its weights",
            replacing({aten.scaled_dot_product_attention.default: write_out_attention}),
            False,
            after=FIRST,
            before=("constants",),  # what a mask makes of a row is computed there
        ),
        Rewrite(
            "flipped-convolution",
            "the adjoint of a convolution of stride 1 is a convolution with the flipped weight",
            replacing({aten.convolution.default: unit_stride}),
            after=FIRST,
            before=("constants",),  # a small flipped weight is computed there
        ),
        Rewrite(
            "factors",
            "numbers that one value is multiplied by one after the other are one number",
            merge_factors,
            after=FIRST,
        ),
        Rewrite("constants", "what depends on no input is computed", _fold, False, after=FIRST),
        Rewrite(
            "full-rows",
            "attention rows that are never masked whole need no guard",
            replacing({aten.where.ScalarSelf: without_empty_rows}),
            after=("attention", "constants"),
        ),
        Rewrite(
            "strided-convolution",
            "the adjoint of a strided convolution is a convolution of stride 1 and a spreading of its values",
            replacing({aten.convolution.default: strided}),
            after=("constants",),  # its weight stays an expression of the forward's, so that a file holds it once
        ),
        Rewrite(
            "spread-channels",
            "channels that are spread over places are picked by a transposed convolution of one group a channel",
            replacing({aten.pixel_shuffle.default: shuffled}),
            after=("strided-convolution",),
        ),
        Rewrite(
            "late-zeros",
            "zeros around a part are put there behind the products that leave them zero",
            pad_late,
            after=FIRST,
            before=("carried-factors",),  # a weight that is cut takes a factor in as a part
        ),
        Rewrite(
            "scales-first",
            "one factor a channel behind a gate is taken in by the weight of the convolution before the gate",
            scale_channels_first,
            after=("flipped-convolution", "strided-convolution"),  # the convolution before is an adjoint
            before=("carried-factors",),
        ),
        Rewrite(
            "carried-factors",
            "temperatures and other numbers are carried along to a weight that takes them in",
            carry_factors,
            after=("factors", "constants", "flipped-convolution", "strided-convolution"),
        ),
        Rewrite(
            "quantisation",
            "fake quantisation is written out, so that forward and adjoint share its levels",
            replacing({FAKE_QUANTIZE: write_out_levels, FAKE_QUANTIZE_MASK: write_out_mask}),
            False,
            after=("factors", "constants", "carried-factors"),  # none of which may move across its rounding
        ),
    )
)
"""The rewrites, in the order they are made; what each must come after or before is checked."""
