"""Integer ids in front of a graph: words are looked up in a table, and what is looked up is explained.

A derivative by an id does not exist. So the captured graph is cut where the ids are looked up: what comes of the lookup
is its explained input, and the ids are passed through, for whatever else is made of them (positions, masks). The graph
that runs has the lookup in front again. The cut is found by data flow: position and type embeddings are looked up by
other integers, or by integers that are computed, and stay in the graph as the constants they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxpullback.contract.ends import EMBEDDINGS
from fxpullback.contract.errors import CaptureError, InputError
from fxpullback.contract.names import INPUT
from fxpullback.graph.ir import EMBEDDED, ORIGIN, aten, calls, explained, is_call, node_argument, placeholders, where
from fxpullback.graph.module import Graph, signature_of
from fxpullback.graph.shapes import same_shape

_LOOKUP = aten.embedding.default
_SAME_IDS = {aten.reshape.default, aten.view.default, aten._to_copy.default, aten.expand.default, aten.clone.default}


@dataclass(frozen=True, eq=False)
class Entry:
    """What stands in front of the explained input of a graph.

    Attributes:
        ids: name of the input that holds the ids.
        tables: the tables the ids are looked up in, by the names of the constants that hold them, `[ids, dim]` each.
            What several tables give for one id is put together along the last axis.
    """

    ids: str
    tables: dict[str, Tensor]

    @property
    def vocabulary(self) -> int:
        """How many ids there are: 0 to one less."""
        return min(int(table.shape[0]) for table in self.tables.values())

    def check_ids(self, ids: Tensor) -> None:
        """Refuse ids that stand in no row of the table."""
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self.vocabulary:
            raise InputError(
                f"{self.ids}: there is no id {low if low < 0 else high}; the table has {self.vocabulary} rows, 0 to "
                f"{self.vocabulary - 1}. Was the text made into ids by the tokenizer of this model?"
            )

    def embedded(self, ids: Tensor) -> Tensor:
        """What the ids `[batch, tokens]` are looked up as, `[batch, tokens, dim]`."""
        found = [table.detach()[ids.long()] for table in self.tables.values()]
        return found[0] if len(found) == 1 else torch.cat(found, -1)

    def in_front(self, gm: Graph, dtype: torch.dtype | None = None) -> Graph:
        """A graph from the explained input, its ids among its extras, as a graph from the ids.

        Args:
            gm: the graph, left as it is.
            dtype: the type in which the tables are held, where that is another than their own.
        """
        root, graph = nn.Module(), fx.Graph()
        for node in gm.graph.nodes:
            if node.op == "get_attr":
                _hold(root, str(node.target), getattr(gm, str(node.target)))
        tables = {name: table if dtype is None else table.to(dtype) for name, table in self.tables.items()}
        held = {_held(root, name, table): table for name, table in tables.items()}
        source, env = explained(gm.graph), dict[fx.Node, fx.Node]()
        for node in placeholders(gm.graph)[1:]:
            env[node] = graph.node_copy(node)
        ids = next(node for node in env.values() if str(node.target) == self.ids)
        env[source] = _looked_up(graph, held, ids, source)
        for node in gm.graph.nodes:
            if node not in env:
                env[node] = graph.node_copy(node, lambda n: env[n])
        signature = signature_of(gm)
        others = tuple(name for name in signature.extras if name != self.ids)
        return Graph(root, graph, replace(signature, explained=self.ids, extras=others), gm.exact, gm.scaled)


def _looked_up(graph: fx.Graph, tables: Mapping[str, Tensor], ids: fx.Node, source: fx.Node) -> fx.Node:
    """The nodes that look the ids up, and give what the explained input is in its own type."""

    def call(target: Any, args: tuple[Any, ...], val: Any, **kwargs: Any) -> fx.Node:
        node = graph.call_function(target, args, kwargs)
        node.meta = {ORIGIN: EMBEDDINGS, "val": val}
        return node

    val, found = source.meta["val"], []
    for name, tensor in tables.items():
        table = graph.get_attr(name)
        table.meta["val"] = val.fake_mode.from_tensor(tensor, static_shapes=True)
        found.append(call(_LOOKUP, (table, ids), _empty_like(source, tensor.shape[1], tensor.dtype)))
        if tensor.dtype != val.dtype:
            wide = _empty_like(source, tensor.shape[1], val.dtype)
            found[-1] = call(aten._to_copy.default, (found[-1],), wide, dtype=val.dtype)
    return found[0] if len(found) == 1 else call(aten.cat.default, (found, -1), val)


def lookup_tables(gm: fx.GraphModule, ids: str) -> list[str]:
    """The names of the constants in which a graph that `Entry.in_front` made looks its ids up, in order."""
    nodes = [n for n in calls(gm.graph) if is_call(n, _LOOKUP) and n.meta.get(ORIGIN) == EMBEDDINGS]
    return [str(node_argument(n, 0).target) for n in nodes if str(node_argument(n, 1).target) == ids]


def _empty_like(source: fx.Node, width: int, dtype: torch.dtype | None = None) -> Any:
    val = source.meta["val"]
    with val.fake_mode:
        return val.new_empty([*val.shape[:-1], width], dtype=dtype or val.dtype)


def _hold(root: nn.Module, name: str, tensor: Tensor) -> None:
    if not hasattr(root, name):
        if isinstance(tensor, nn.Parameter):
            root.register_parameter(name, tensor)
        else:
            root.register_buffer(name, tensor)


def _held(root: nn.Module, name: str, table: Tensor) -> str:
    """The name under which a module holds a table; it is added where the module does not hold it."""
    free, count = name, 0
    while hasattr(root, free) and not torch.equal(getattr(root, free), table):
        count += 1
        free = f"{name}_table_{count}"
    _hold(root, free, table)
    return free


def cut(gm: Graph, ids_name: str) -> tuple[Graph, Entry]:
    """Cut a captured graph where its ids are looked up.

    Args:
        gm: graph whose first input holds ids.
        ids_name: what to call that input.

    Returns:
        The graph from what is looked up, the ids its first extra; and what stands in front of it.

    Raises:
        CaptureError: the ids are looked up nowhere, or in another shape or order than they come in.
    """
    ids = explained(gm.graph)
    lookups = _lookups(gm.graph, ids)
    tables = {str(node_argument(node, 0).target): getattr(gm, str(node_argument(node, 0).target)) for node in lookups}
    entry = Entry(ids_name, {name: table.detach() for name, table in tables.items()})
    widths = [int(table.shape[1]) for table in tables.values()]
    graph, env = fx.Graph(), dict[fx.Node, Any]()
    source = graph.placeholder(INPUT)
    first = lookups[0].meta["val"]
    with first.fake_mode:
        val = first.new_empty([*ids.meta["val"].shape, sum(widths)])
    source.meta.update({"val": val, EMBEDDED: True})
    env[ids] = graph.placeholder(ids_name)
    env[ids].meta = dict(ids.meta)
    for node in placeholders(gm.graph)[1:]:
        env[node] = graph.node_copy(node)
    parts = dict(zip(tables, _parts(graph, source, widths), strict=True))
    for node in gm.graph.nodes:
        if node in lookups:
            env[node] = parts[str(node_argument(node, 0).target)]
        elif node not in env:
            env[node] = graph.node_copy(node, lambda n: env[n])
    graph.eliminate_dead_code()
    signature = signature_of(gm)
    return Graph(gm, graph, replace(signature, extras=(ids_name, *signature.extras)), gm.exact, gm.scaled), entry


def _parts(graph: fx.Graph, source: fx.Node, widths: list[int]) -> list[fx.Node]:
    """What each table gave, of what they gave together."""
    if len(widths) == 1:
        return [source]
    found, start = [], 0
    for width in widths:
        part = graph.call_function(aten.slice.Tensor, (source, -1, start, start + width))
        part.meta["val"] = _empty_like(source, width)
        found.append(part)
        start += width
    return found


def _lookups(graph: fx.Graph, ids: fx.Node) -> list[fx.Node]:
    """The calls that look the ids up themselves, as they come."""
    same, found = {ids}, []
    for node in calls(graph):
        if node.target in _SAME_IDS and node.args[0] in same and not node.meta["val"].is_floating_point():
            same.add(node)
        elif is_call(node, _LOOKUP) and node.args[1] in same and node_argument(node, 0).op == "get_attr":
            found.append(node)
    shape = ids.meta["val"].shape
    for node in found:
        if not same_shape(node.meta["val"].shape[:-1], shape):
            raise CaptureError(
                f"at='embeddings': {where(node)} looks the ids {list(shape)} up as {list(node.meta['val'].shape)}. "
                "Wrap the model in a module that takes them in the shape in which they are looked up."
            )
    if not found:
        raise CaptureError(
            "at='embeddings': the first input is looked up in no embedding table as it comes; integers that are "
            "computed of it do not count. Pass the ids first, compile(model, {'input_ids': ids, ...}), or compile the "
            "part behind the lookup with its floating-point input."
        )
    return found
