"""One spelling per operator: `nn.ReLU`, `F.relu`, `x.relu_()` and `x.clamp(min=0)` are one target afterwards.

Only spellings that compute the same bits are merged, but for instance norm, which is group norm up to rounding, and the
compounds of `fxpullback.graph.compounds`: the captured graph of any other model gives its own logits, bit for bit.
`fxpullback.graph.canonical` lists what may not stand afterwards; the tables here say how it is spelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram, default_decompositions
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from fxpullback.capture.context import IN_CONTEXT
from fxpullback.capture.known import READS
from fxpullback.capture.quantised import shapes_said
from fxpullback.capture.quiet import quiet
from fxpullback.capture.recurrent import RECURRENT
from fxpullback.capture.regions import joined
from fxpullback.contract.errors import CaptureError
from fxpullback.graph.canonical import DROPPED, NOT_CANONICAL, NOT_CANONICAL_IF, is_composite
from fxpullback.graph.compilation import Compilation
from fxpullback.graph.ir import ORIGIN, aten, is_size, operator_name, where
from fxpullback.graph.module import Graph
from fxpullback.graph.rebuild import Site, rebuild
from fxpullback.graph.spellings import respell


def decompose(program: ExportedProgram) -> ExportedProgram:
    """Take apart what torch composes of operators that the IR has, as eager torch does.

    Raises:
        CaptureError: an operator cannot be taken apart without the values of its arguments, or returns as many entries
            as they say; or it computes in half precision under autocast.
    """
    program = joined(program)
    try:
        with quiet(), _without_guards(program), shapes_said():
            plain: ExportedProgram = program.run_decompositions(decompositions())
    except CaptureError:
        raise
    except Exception:
        check_sizes(program.graph)
        raise
    return plain


@contextmanager
def _without_guards(program: ExportedProgram) -> Iterator[None]:
    """A program without its checks of sizes, which torch 2.15 words wrongly where inputs are passed by name."""
    code = getattr(program, "_guards_code", None)
    if code is None:
        yield
        return
    program._guards_code = []
    try:
        yield
    finally:
        program._guards_code = code


def check_sizes(graph: fx.Graph) -> None:
    """Refuse an operator that returns as many entries as the values of its arguments say.

    Raises:
        CaptureError: names it and its line.
    """
    asserted = _asserted(graph)
    for node in graph.nodes:
        if node in asserted:
            continue
        if node.target in READS:
            raise CaptureError(
                f"{where(node)} reads a number off a tensor (.item(), float(...), int(...)), and it holds for one "
                "input. Keep it a tensor: x.mean() in place of x.mean().item(). One that depends on a free size alone "
                "is a constant at one size: leave free_size out."
            )
        if isinstance(val := node.meta.get("val"), torch.Tensor) and free_unbacked_symbols(val):
            raise CaptureError(
                f"{where(node)} returns as many entries as the values of its arguments say, and a graph has fixed "
                f"sizes. {_instead_of(node)}"
            )


def without_assertions(gm: Graph) -> None:
    """Erase the assertions of the model's own, and what only they read; `check_sizes` of the rest.

    Raises:
        CaptureError: as `check_sizes`.
    """
    check_sizes(gm.graph)
    erased = _asserted(gm.graph)
    for node in reversed(gm.graph.nodes):
        if node in erased:
            gm.graph.erase_node(node)


def _asserted(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that nothing reads but assertions of the model's own."""
    found = set[fx.Node]()
    for node in reversed(graph.nodes):
        if node.target in _ASSERTIONS or (node.op == "call_function" and node.users and set(node.users) <= found):
            found.add(node)
    return found


_ASSERTIONS = (aten._assert_scalar.default, aten._assert_async.msg, aten._assert_async.default)
_BY_MASK = (aten.index.Tensor, aten.index_put.default, aten.nonzero.default, aten.masked_select.default)


def _instead_of(node: fx.Node) -> str:
    """What to write in place of an operator that returns as many entries as values say."""
    if node.target in _BY_MASK:
        return (
            "Of a mask that depends on the input, entries may be changed one by one and put back at the places of the "
            "same mask, y[y < 0] *= a; a mean over them is a weighted mean, (y * m).sum(1) / m.sum(1); and one of "
            "each sample is x[torch.arange(batch), place]. Of one that depends on its sizes alone, make an index once, "
            "self.register_buffer('kept', mask.flatten().nonzero().squeeze(1)), and take x.flatten(2)[:, :, self.kept]."
        )
    return "Take a fixed number of them: x[torch.arange(batch), place] for one of each sample, or torch.where."


def decompositions() -> dict[Any, Callable[..., Any]]:
    """What `run_decompositions` takes apart: composites that are neither one operator of the IR nor respelled."""
    return {op: _parts(op) for op in default_decompositions() if is_composite(op) and op not in NOT_CANONICAL}


def _parts(op: Any) -> Callable[..., Any]:
    """The operator as torch composes it; not `op.decompose`, which looks in the table that this stands in."""

    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return op._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
        except Exception as error:
            raise CaptureError(
                f"{operator_name(op)} cannot be taken apart into operators of known shapes: {error}. Write the model "
                "without it."
            ) from error

    return run


def canonicalise(gm: fx.GraphModule, compilation: Compilation | None = None) -> Graph:
    """Return the graph in canonical spelling, its dead and size-only nodes gone."""
    result = rebuild(gm, _respelled, compilation)
    for node in result.graph.nodes:
        node.meta.pop(ORIGIN, None)  # from here on the origin of a node is its name in this graph
    return result


def _respelled(site: Site) -> Any:
    """What stands for a node, NotImplemented where it is canonical itself."""
    target = site.node.target
    if target in DROPPED:
        return None
    if site.node.op != "call_function" or is_size(site.node):
        return NotImplemented
    if target in IN_CONTEXT:
        made = IN_CONTEXT[target](site)
        if made is not NotImplemented:
            return made
    if target in RECURRENT:
        arguments = site.arguments()
        return NotImplemented if NOT_CANONICAL_IF[target](*arguments) is None else RECURRENT[target](*arguments)
    return respell(site.builder, target, site.arguments(), {})
