"""What every rewrite of the lowering is made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from fxpullback.graph.builder import Builder
from fxpullback.graph.ir import ORIGIN, schema_arguments
from fxpullback.graph.rebuild import walk

Emit = Callable[[Builder, fx.Node, tuple[Any, ...]], Any]


@dataclass(frozen=True)
class Rewrite:
    """One named rewrite of the lowering.

    Attributes:
        name: what the log, `--without` and the benchmarks call it.
        what: what it does, in a sentence.
        apply: graph -> (graph, how many places were changed).
        optional: whether the graph is right without it, so that it may be left out.
    """

    name: str
    what: str
    apply: Callable[[fx.GraphModule], tuple[fx.GraphModule, int]]
    optional: bool = True


def replacing(table: dict[Any, Emit]) -> Callable[[fx.GraphModule], tuple[fx.GraphModule, int]]:
    """A rewrite of single calls: operators of `table` by what its functions emit; NotImplemented keeps the call."""

    def apply(gm: fx.GraphModule) -> tuple[fx.GraphModule, int]:
        changed = 0

        def visit(builder: Builder, node: fx.Node, env: dict[fx.Node, Any]) -> Any:
            nonlocal changed
            emit = table.get(node.target)
            if emit is None:
                return builder.copy(node, env)
            arguments = fx.map_arg(schema_arguments(node), lambda n: env[n])
            kept = {k: v for k, v in node.meta.items() if k != "val"}
            with builder.provenance(node.name, **{ORIGIN: node.name, **kept}):
                made = emit(builder, node, tuple(arguments))
            if made is NotImplemented:
                return builder.copy(node, env)
            changed += 1
            return made

        return walk(gm, visit), changed

    return apply


def same_shape(node: fx.Node, source: fx.Node) -> bool:
    """Whether two nodes are tensors of one shape, free sizes included."""
    mine, theirs = node.meta["val"].shape, source.meta["val"].shape
    return len(mine) == len(theirs) and all(_equal(a, b) for a, b in zip(mine, theirs, strict=True))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.SymInt) or isinstance(b, torch.SymInt):
        return isinstance(a, torch.SymInt) and isinstance(b, torch.SymInt) and bool(a.node.expr == b.node.expr)
    return bool(a == b)
