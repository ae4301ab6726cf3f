"""What every rewrite of the lowering is made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from fxpullback.contract.errors import LowerError
from fxpullback.graph.compilation import Compilation
from fxpullback.graph.ir import calls
from fxpullback.graph.module import Graph
from fxpullback.graph.rebuild import Handler, Site, rebuild

Apply = Callable[[fx.GraphModule, Compilation | None], tuple[Graph, int]]


@dataclass(frozen=True)
class Rewrite:
    """One named rewrite of the lowering.

    Attributes:
        name: what the log, `--without` and the benchmarks call it.
        what: what it does, in a sentence.
        apply: graph -> (graph, how many places were changed).
        optional: whether the graph is right without it, so that it may be left out.
        after: rewrites that must have been made before, where the order matters.
        before: rewrites that must not have been made yet.
    """

    name: str
    what: str
    apply: Apply
    optional: bool = True
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()


def replacing(table: Mapping[Any, Handler]) -> Apply:
    """A rewrite of single calls: operators of `table` by what its handlers emit; NotImplemented keeps the call."""

    def apply(gm: fx.GraphModule, compilation: Compilation | None = None) -> tuple[Graph, int]:
        changed = 0
        if isinstance(gm, Graph) and not any(node.target in table for node in calls(gm.graph)):
            return gm, 0

        def replace(site: Site) -> Any:
            nonlocal changed
            handler = table.get(site.node.target)
            made = NotImplemented if handler is None else handler(site)
            changed += made is not NotImplemented
            return made

        return rebuild(gm, replace, compilation), changed

    return apply


def in_order(rewrites: Sequence[Rewrite], further: Sequence[Rewrite] = ()) -> tuple[Rewrite, ...]:
    """All rewrites in an order that each of them allows.

    Args:
        rewrites: rewrites in order.
        further: others, each put as late as its `before` allows.

    Raises:
        LowerError: two of one name, a neighbour that does not exist, or an order that one of them rules out.
    """
    order = list(rewrites)
    for rewrite in further:
        limits = [i for i, other in enumerate(order) if other.name in rewrite.before or rewrite.name in other.after]
        order.insert(min(limits, default=len(order)), rewrite)
    places = {rewrite.name: place for place, rewrite in enumerate(order)}
    if len(places) < len(order):
        twice = next(r.name for i, r in enumerate(order) if places[r.name] != i)
        raise LowerError(f"two rewrites are called {twice!r}. Give one of them another name.")
    for rewrite in order:
        pairs = [(other, rewrite.name) for other in rewrite.after] + [(rewrite.name, other) for other in rewrite.before]
        for first, second in pairs:
            if first not in places or second not in places:
                unknown = first if first not in places else second
                raise LowerError(
                    f"the rewrite {rewrite.name!r} names {unknown!r}, which is none of {', '.join(places)}."
                )
            if places[first] >= places[second]:
                raise LowerError(f"the rewrite {first!r} must come before {second!r}, as {rewrite.name!r} declares.")
    return tuple(order)
