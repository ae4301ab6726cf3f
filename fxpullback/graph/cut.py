"""Integer ids in front of a graph: words are looked up in a table, and what is looked up is explained.

A derivative by an id does not exist. So the captured graph is cut where the ids are looked up: what comes of the lookup
is its explained input, and the ids are passed through, for whatever else is made of them (positions, masks). The graph
that runs has the lookup in front again. The cut is found by data flow: position and type embeddings are looked up by
other integers, or by integers that are computed, and stay in the graph as the constants they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from fxpullback.contract.ends import EMBEDDINGS
from fxpullback.contract.errors import CaptureError
from fxpullback.contract.names import INPUT
from fxpullback.graph.builder import Builder
from fxpullback.graph.entry import Entry, Part
from fxpullback.graph.ir import (
    LAID_OUT,
    ORIGIN,
    PART,
    aten,
    calls,
    is_call,
    node_argument,
    outputs,
    placeholders,
    where,
)
from fxpullback.graph.module import Graph, signature_of
from fxpullback.graph.rebuild import Site, append, tidy
from fxpullback.graph.shapes import same_shape

INPUTS = "inputs"
"""What the nodes are called that lay several explained inputs side by side."""

_LOOKUP = aten.embedding.default
_SWAPS = {aten.transpose.int}
_SAME_IDS = {
    aten.reshape.default, aten.view.default, aten._to_copy.default, aten.expand.default, aten.clone.default,
    aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims,
}  # fmt: skip


@dataclass(frozen=True)
class Lookup:
    """One call that looks the ids of an input up.

    Attributes:
        node: the call.
        order: the axes of the ids in the order in which they are looked up: (1, 0) where `ids.T` is.
    """

    node: fx.Node
    order: tuple[int, ...]

    @property
    def table(self) -> str:
        """The name of the constant that holds the table."""
        return str(node_argument(self.node, 0).target)

    def of(self, value: Any) -> Any:
        """What it gives, of what the ids `[batch, tokens]` give as they come, `[batch, tokens, dim]`."""
        plain = self.order == tuple(range(len(self.order)))
        return value if plain else value.permute([*self.order, len(self.order)])


def in_front(entry: Entry, gm: Graph, dtype: torch.dtype | None = None) -> Graph:
    """A graph from the explained input, the parts among its extras, as a graph from the parts.

    Args:
        entry: what stands in front of it.
        gm: the graph, left as it is.
        dtype: the type in which the tables are held, where that is another than their own.
    """
    builder = Builder(gm)
    env: dict[fx.Node, Any] = {}
    source, *others = placeholders(gm.graph)
    for node in others:
        env[node] = builder.placeholder(str(node.target), node.meta["val"])
    given = dict(zip((str(node.target) for node in others), others, strict=True))
    with builder.provenance(EMBEDDINGS if not entry.is_joined else INPUTS, **{ORIGIN: EMBEDDINGS}):
        values = [_looked_up(builder, part, env[given[part.name]], source, dtype) for part in entry.parts]
        if entry.is_joined:
            env[source] = torch.cat(
                [value.reshape([-1, math.prod(part.sample)]) for value, part in zip(values, entry.parts, strict=True)],
                1,
            )
        else:
            (env[source],) = values

    def again(site: Site) -> Any:
        with site.provenance():
            return site.copy()

    append(builder, gm, env, again)
    signature = signature_of(gm)
    with builder.provenance(INPUTS, **{ORIGIN: EMBEDDINGS}):
        results = entry.outputs(dict(zip(signature.outputs, (env[n] for n in outputs(gm.graph)), strict=True)))
    rest = tuple(name for name in signature.extras if name != entry.parts[0].name)
    signature = replace(signature, explained=entry.parts[0].name, extras=rest, outputs=tuple(results))
    return tidy(builder.finish(tuple(results.values()), signature))


def _looked_up(builder: Builder, part: Part, given: Any, source: fx.Node, dtype: torch.dtype | None) -> Any:
    """What is explained of a part, in the type of the explained input."""
    wanted, found = source.meta["val"].dtype, []
    for name, own in part.tables.items():
        table = own if dtype is None else own.to(dtype)
        held = getattr(builder.source, name, None)
        same = isinstance(held, Tensor) and held.dtype == table.dtype and torch.equal(held, table)
        rows = builder.attribute(name) if same else builder.constant(name, table)
        value = builder.call(_LOOKUP, (rows, given), {})
        found.append(value if value.dtype == wanted else value.to(wanted))
    if not found:
        return given
    return found[0] if len(found) == 1 else torch.cat(found, -1)


def lookup_tables(gm: fx.GraphModule, ids: str) -> list[str]:
    """The names of the constants in which a graph that `Entry.in_front` made looks its ids up, in order."""
    nodes = [n for n in calls(gm.graph) if is_call(n, _LOOKUP) and n.meta.get(ORIGIN) == EMBEDDINGS]
    return [str(node_argument(n, 0).target) for n in nodes if str(node_argument(n, 1).target) == ids]


def cut(gm: Graph, first: str, explain: Sequence[str] = ()) -> tuple[Graph, Entry]:
    """Cut a captured graph where its explained inputs enter: ids where they are looked up, values where they are.

    Args:
        gm: graph from its inputs.
        first: what to call the first of them.
        explain: the inputs that are explained, by name, the first among them; none: the first input alone.

    Returns:
        The graph from what is explained, the inputs it is made of its first extras; and what stands in front of it.

    Raises:
        CaptureError: an input is not there, is no floating-point tensor and looked up nowhere, or its size is free.
    """
    given = dict(zip((first, *signature_of(gm).extras), placeholders(gm.graph), strict=True))
    names = tuple(explain) or (first,)
    check_explained(names, given)
    lookups = {
        name: _lookups(gm.graph, given[name]) for name in names if not given[name].meta["val"].is_floating_point()
    }
    entry = Entry(tuple(_part(gm, name, given[name], lookups.get(name, ())) for name in names))
    builder, env = Builder(gm), dict[fx.Node, Any]()
    source = builder.placeholder(INPUT, _explained_value(entry, given[first].meta["val"]))
    env |= {node: builder.placeholder(name, node.meta["val"]) for name, node in given.items()}
    with builder.provenance(INPUTS):
        values = entry.apart(source)
        for part, value in zip(entry.parts, values, strict=True):
            value.node.meta[LAID_OUT] = "embedded" if part.tables else "input"
            if entry.is_joined:
                value.node.meta[PART] = part.name
            if not part.tables:
                env[given[part.name]] = value
        pieces = {
            node: piece
            for part, value in zip(entry.parts, values, strict=True)
            for node, piece in _pieces(part, value, lookups.get(part.name, ()))
        }

    def again(site: Site) -> Any:
        with site.provenance():
            return pieces[site.node] if site.node in pieces else site.copy()

    append(builder, gm, env, again)
    signature = replace(signature_of(gm), extras=tuple(given))
    return tidy(builder.finish(tuple(env[node] for node in outputs(gm.graph)), signature)), entry


def _part(gm: Graph, name: str, given: fx.Node, lookups: Sequence[Lookup]) -> Part:
    tables = {lookup.table: getattr(gm, lookup.table) for lookup in lookups}
    sample = [-1 if isinstance(size, torch.SymInt) else int(size) for size in given.meta["val"].shape[1:]]
    sample += [sum(int(table.shape[1]) for table in tables.values())] if tables else []
    return Part(name, {key: table.detach() for key, table in tables.items()}, tuple(sample))


def _explained_value(entry: Entry, given: Any) -> Any:
    """The fake value of the explained input."""
    kinds = {t.dtype for part in entry.parts for t in part.tables.values()}
    dtype = next(iter(kinds), given.dtype)
    with given.fake_mode:
        if entry.is_joined:
            return given.new_empty([given.shape[0], sum(math.prod(part.sample) for part in entry.parts)], dtype=dtype)
        return given.new_empty([*given.shape, entry.parts[0].sample[-1]], dtype=dtype)


def _pieces(part: Part, value: Any, lookups: Sequence[Lookup]) -> list[tuple[fx.Node, Any]]:
    """What each lookup gave, of what the tables of a part gave together."""
    starts, start = {}, 0
    for name, table in part.tables.items():
        starts[name] = start, start + int(table.shape[1])
        start += int(table.shape[1])
    whole = len(part.tables) == 1
    named = {name: value if whole else value[..., slice(*where)] for name, where in starts.items()}
    return [(lookup.node, lookup.of(named[lookup.table])) for lookup in lookups]


def check_explained(names: Sequence[str], given: Mapping[str, fx.Node]) -> None:
    """Refuse inputs that there are not, that cannot be explained together, or twice the same."""
    taken = ", ".join(given)
    unknown = [name for name in names if name not in given]
    if unknown or len(set(names)) < len(names):
        raise CaptureError(f"explain={tuple(names)}: the model takes {taken}. Name each input that is explained once.")
    if tuple(names) != tuple(given)[: len(names)]:
        raise CaptureError(
            f"explain={tuple(names)}: the examples come as {taken}. Pass those that are explained first and in "
            "that order, or all of them by name: compile(model, {'pixel_values': x, ...})."
        )
    if len(names) == 1:
        return
    for name in names:
        val = given[name].meta["val"]
        fixed = isinstance(val.shape[0], torch.SymInt) and not any(isinstance(n, torch.SymInt) for n in val.shape[1:])
        if not fixed:
            raise CaptureError(
                f"explain={tuple(names)}: {name} is {list(val.shape)}; inputs that are explained together have the "
                "batch as first axis and fixed sizes behind it. Leave free_size out, and pass examples of one batch."
            )


def _whole(axes: Any) -> tuple[int, ...]:
    return tuple(int(axis) for axis in axes)


def _moves_ids(node: fx.Node) -> bool:
    """Whether a call may return the integers that it is given."""
    known = node.target in (*_SAME_IDS, *_SWAPS, aten.permute.default, aten.slice.Tensor)
    return known and not node.meta["val"].is_floating_point()


def _order(node: fx.Node, before: tuple[int, ...]) -> tuple[int, ...] | None:
    """The order of the axes of ids behind a call on ids in an order; None where it returns others than it is given."""
    if node.target in _SWAPS:
        first, second = (axis % len(before) for axis in _whole(node.args[1:3]))
        swapped = list(range(len(before)))
        swapped[first], swapped[second] = second, first
        return tuple(before[axis] for axis in swapped)
    if node.target is aten.permute.default:
        return tuple(before[axis % len(before)] for axis in _whole(node.args[1]))
    kept = same_shape(node.meta["val"].shape, node_argument(node, 0).meta["val"].shape)
    if node.target is aten.slice.Tensor:
        return before if kept else None
    as_they_come = before == tuple(range(len(before)))  # shapes of those are compared where they are looked up
    return before if node.target in _SAME_IDS and (kept or as_they_come) else None


def _lookups(graph: fx.Graph, ids: fx.Node) -> list[Lookup]:
    """The calls that look the ids of an input up themselves, as they come or with their axes in another order."""
    shape = ids.meta["val"].shape
    same: dict[Any, tuple[int, ...]] = {ids: tuple(range(len(shape)))}
    found = list[Lookup]()
    for node in calls(graph):
        if is_call(node, _LOOKUP):
            if node.args[1] in same and node_argument(node, 0).op == "get_attr":
                found.append(Lookup(node, same[node.args[1]]))
        elif _moves_ids(node) and node.args[0] in same:
            order = _order(node, same[node.args[0]])
            if order is not None:
                same[node] = order
    for lookup in found:
        node = lookup.node
        if not same_shape(node.meta["val"].shape[:-1], [shape[axis] for axis in lookup.order]):
            raise CaptureError(
                f"at='embeddings': {where(node)} looks the ids {list(shape)} up as {list(node.meta['val'].shape)}. "
                "Wrap the model in a module that takes them in the shape in which they are looked up."
            )
    if not found:
        raise CaptureError(
            f"at='embeddings': the input {ids.name} is looked up in no embedding table as it comes; integers that are "
            "computed of it do not count. Pass the ids first, compile(model, {'input_ids': ids, ...}), or compile the "
            "part behind the lookup with its floating-point input."
        )
    return found
