"""The one engine that copies a graph. Every pass over a graph is a handler for it.

A handler sees one node of the graph before, a `Site`, and returns what stands for that node from now on: a value, a
tuple of values, a `StandIn`, or NotImplemented for a plain copy. The engine owns three things:

- provenance: nodes that a handler writes are named after the node they come of, and carry its meta;
- stand-ins: a value that is held without its factor, or without its zeros, is written out where a plain copy reads it;
- what a node holds: which captured operators' values and cotangents it is, and with what factor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import fx

from fxpullback.graph.builder import Builder
from fxpullback.graph.compilation import Compilation
from fxpullback.graph.ir import ORIGIN, WHOLE, outputs, schema_arguments
from fxpullback.graph.module import Graph
from fxpullback.graph.operators import OperatorTable, Traits
from fxpullback.graph.value import Value

G = TypeVar("G", bound=fx.GraphModule)
Made = dict[Any, Any]


class StandIn(ABC):
    """What stands for a value without being it."""

    @abstractmethod
    def whole(self, made: Made) -> Any:
        """The value itself; `made` remembers what was written out, so that it is written once."""


@dataclass(frozen=True)
class Carried(StandIn):
    """`factor` times `value` stands for a value of the graph before."""

    value: Any
    factor: float

    def whole(self, made: Made) -> Any:
        """The product, written out."""
        if same(self.factor, 1.0):
            return self.value
        key = self.value.node, self.factor
        if key not in made:
            made[key] = self.value * self.factor
        return made[key]


def same(a: float, b: float) -> bool:
    """Whether two factors are one but for rounding."""
    return abs(a - b) <= 1e-12 * abs(b)


@dataclass(frozen=True)
class Site:
    """One node of the graph before, where a handler says what stands for it.

    Attributes:
        builder: writes the new graph.
        node: the node of the graph before.
        env: what stands for the nodes before it.
        made: stand-ins written out so far.
    """

    builder: Builder
    node: fx.Node
    env: dict[fx.Node, Any]
    made: Made

    @property
    def operators(self) -> OperatorTable:
        """What is true of every operator."""
        return self.builder.compilation.operators

    @property
    def traits(self) -> Traits:
        """What is true of the operator that the node calls."""
        return self.operators.at(self.node)

    def whole(self, n: fx.Node) -> Any:
        """The value of a node, written out if something stands in for it."""
        held = self.env[n]
        return held.whole(self.made) if isinstance(held, StandIn) else held

    def arguments(self) -> tuple[Any, ...]:
        """The arguments in schema order, defaults filled in, nodes as their values."""
        found: tuple[Any, ...] = fx.map_arg(schema_arguments(self.node), self.whole)
        return found

    def copy(
        self,
        values: Mapping[fx.Node, Any] | None = None,
        *,
        name: str | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Any:
        """The node itself again.

        Args:
            values: values for some of its arguments, of the same shapes and types.
            name: another name than its own.
            meta: what its meta says beside.
        """
        values = values or {}
        env = {n: values[n] if n in values else self.whole(n) for n in self.node.all_input_nodes}
        return self.builder.copy(self.node, env, name, **(meta or {}))

    def provenance(self) -> AbstractContextManager[None]:
        """Inside, what is written is named after the node and carries its meta."""
        kept = {key: value for key, value in self.node.meta.items() if key != "val"}
        return self.builder.provenance(self.node.name, **{ORIGIN: self.node.name, **kept})


Handler = Callable[[Site], Any]


def by_operator(table: Mapping[Any, Handler]) -> Handler:
    """One handler of several, by the operator that is called; NotImplemented for every other operator."""

    def handle(site: Site) -> Any:
        handler = table.get(site.node.target) if site.node.op == "call_function" else None
        return NotImplemented if handler is None else handler(site)

    return handle


def rebuild(
    gm: fx.GraphModule, handler: Handler, compilation: Compilation | None = None, moved: Collection[fx.Node] = ()
) -> Graph:
    """Make a graph of another one, node by node.

    Args:
        gm: the graph, left as it is.
        handler: says what stands for a node that is neither input nor output.
        compilation: what the stages of one compilation share.
        moved: nodes whose stand-in has another value than they, as what reads them was moved into it.

    Returns:
        The new graph with its dead nodes dropped; inputs, outputs and signature are taken over.
    """
    builder = Builder(gm, compilation)
    env, made = dict[fx.Node, Any](), Made()

    def owned(site: Site) -> Any:
        with site.provenance():
            found = handler(site)
            return site.copy() if found is NotImplemented else found

    append(builder, gm, env, owned, made, moved)
    return tidy(builder.finish(tuple(Site(builder, n, env, made).whole(n) for n in outputs(gm.graph))))


def append(
    builder: Builder,
    gm: fx.GraphModule,
    env: dict[fx.Node, Any],
    handler: Handler,
    made: Made | None = None,
    moved: Collection[fx.Node] | None = (),
) -> None:
    """Append the nodes of a graph to one under construction.

    Args:
        builder: where to.
        gm: the graph, left as it is.
        env: what stands for its inputs, those that are there already; what stands for its nodes is added.
        handler: what stands for a node; it owns the provenance.
        made: stand-ins written out so far.
        moved: nodes whose stand-in has another value than they; None where no node of the copy holds what it did.
    """
    made = Made() if made is None else made
    for node in gm.graph.nodes:
        if node.op == "placeholder" and node not in env:
            env[node] = builder.placeholder(str(node.target), node.meta["val"])
        if node.op in ("placeholder", "output"):
            continue
        env[node] = handler(Site(builder, node, env, made))
        if moved is not None and node not in moved:
            hand_on(node, env[node])


def hand_on(node: fx.Node, made: Any) -> None:
    """Note on what stands for a node which operators' values and cotangents it is, and with what factor."""
    held = made if isinstance(made, Carried) else Carried(made, 1.0)
    if not isinstance(held.value, Value):
        return
    meta = held.value.node.meta
    for key in WHOLE:
        if key in node.meta:
            mine = {name: factor * held.factor for name, factor in node.meta[key].items()}
            meta[key] = {**mine, **meta.get(key, {})}


def tidy(gm: G) -> G:
    """Drop dead nodes and the constants that nothing reads any more."""
    gm.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))  # all else is functional
    used = {str(node.target) for node in gm.graph.nodes if node.op == "get_attr"}
    for name in [*dict(gm.named_parameters()), *dict(gm.named_buffers())]:
        if name not in used:
            delattr(gm, name)
    gm.recompile()
    return gm
