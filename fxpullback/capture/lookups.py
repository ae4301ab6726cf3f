"""How long a sequence may be: a table of positions has so many rows, and no guard of torch says so.

Which row is looked up is computed of the length, or of the ids, so torch knows nothing of it when it captures. Here the
part of the graph that computes the rows is run at other lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from fxpullback.contract.errors import CaptureError
from fxpullback.contract.sizes import FreeAxis
from fxpullback.graph.entry import Entry
from fxpullback.graph.inputs import extra_of
from fxpullback.graph.ir import aten, calls, depends_on, explained, extra_inputs, is_call, needed_for, where
from fxpullback.graph.module import Graph, signature_of

LONGEST = 1 << 17
"""A sequence that allows this many tokens is taken to allow any number."""

LARGEST = 1 << 24
"""Entries of the largest value that is computed to find out: a length above is taken to be allowed where it is."""

_LOOKUPS = (aten.embedding.default, aten.index_select.default, aten.index.Tensor, aten.gather.default)


def bounded(gm: Graph, entry: Entry, extras: Sequence[Tensor], free: Sequence[FreeAxis]) -> tuple[FreeAxis, ...]:
    """The free axes of a captured graph of ids, each no longer than its tables of positions reach.

    Args:
        gm: the graph behind the lookup of the ids.
        entry: what stands in front of it.
        extras: examples of its extras, the ids first.
        free: the axes as torch allows them.

    Raises:
        CaptureError: the tables leave no length but that of the example.
    """
    rows = _Rows(gm, entry, extras)
    return tuple(_bounded(axis, rows) for axis in free) if rows.lookups else tuple(free)


def _bounded(axis: FreeAxis, rows: _Rows) -> FreeAxis:
    most = axis.most or LONGEST
    steps = (most - axis.least) // axis.multiple
    while steps > 1 and rows.entries(axis.axis, axis.least + steps * axis.multiple) > LARGEST:
        steps //= 2  # as where a row is looked up for every pair of places; their tables do not grow with the length
    low, high = 0, steps  # in steps of the axis' multiple above its smallest size
    if rows.reach(axis.axis, axis.least + steps * axis.multiple):
        return axis
    if not rows.reach(axis.axis, axis.least):
        raise CaptureError(
            f"free_size: {where(rows.lookups[-1])} looks up rows that its table does not have at {axis.name} "
            f"{axis.least}. Compile the model for one size."
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rows.reach(axis.axis, axis.least + middle * axis.multiple) else (low, middle)
    return replace(axis, most=axis.least + low * axis.multiple)


class _Rows:
    """The part of a graph that computes which rows are looked up."""

    def __init__(self, gm: Graph, entry: Entry, extras: Sequence[Tensor]) -> None:
        self.entry, self.extras = entry, extras
        self.nodes = extra_inputs(gm)
        found = [node for node in calls(gm.graph) if is_call(node, *_LOOKUPS) and _is_constant(node.args[0])]
        needed = {node: needed_for(node.all_input_nodes) for node in found}
        of_values = depends_on(gm.graph, [explained(gm.graph)])
        self.lookups = [node for node in found if node not in of_values]
        graph, env = fx.Graph(), dict[fx.Node, Any]()
        wanted = {n for node in self.lookups for n in (node, *needed[node])}
        for node in gm.graph.nodes:
            if node.op == "placeholder" or node in wanted:
                env[node] = graph.node_copy(node, lambda n: env[n])
        graph.output(tuple(env[node] for node in self.lookups))
        self.part = Graph(gm, graph, signature_of(gm))

    def reach(self, axis: int, size: int) -> bool:
        """Whether every row that is looked up at a size is there."""
        inputs = [self._resized(*pair, axis, size) for pair in zip(self.nodes, self.extras, strict=True)]
        x = self.entry.value([inputs[0][:1, :1]]).expand(*inputs[0].shape, -1)
        try:
            with torch.no_grad():
                self.part(x, *inputs)
        except (IndexError, RuntimeError):
            return False
        return True

    def entries(self, axis: int, size: int) -> int:
        """The most entries that a value has which is computed for the rows at a size; nothing is computed."""
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        inputs = [self._resized(*pair, axis, 1) for pair in zip(self.nodes, self.extras, strict=True)]
        x = self.entry.value([inputs[0][:1, :1]])
        with fake, torch.no_grad():
            given = [self._stretched(*pair, axis, size) for pair in zip(self.nodes, inputs, strict=True)]
            counted = _Counted(self.part)
            counted.run(x.new_empty([*given[0].shape, x.shape[-1]]), *given)
        return counted.most

    def _stretched(self, node: fx.Node, extra: Tensor, axis: int, size: int) -> Tensor:
        followed = {own for own, other in extra_of(node, extra).follows if other == axis}
        return extra.new_empty([size if i in followed else n for i, n in enumerate(extra.shape)])

    def _resized(self, node: fx.Node, extra: Tensor, axis: int, size: int) -> Tensor:
        """One sample of an extra at another size: its first entries over again, none of them padding."""
        held = extra_of(node, extra)
        resized = extra[:1] if held.batched else extra
        for own, followed in held.follows:
            if followed == axis:
                resized = resized.index_select(own, torch.arange(size, device=extra.device) % 1)
        return resized


class _Counted(fx.Interpreter):
    """Runs a graph and keeps how many entries its largest value has."""

    most = 0

    def run_node(self, n: fx.Node) -> Any:
        """One node."""
        made = super().run_node(n)
        self.most = max(self.most, made.numel() if isinstance(made, Tensor) else 0)
        return made


def _is_constant(table: Any) -> bool:
    """Whether a table is a constant, or made of constants alone."""
    return isinstance(table, fx.Node) and all(n.op != "placeholder" for n in needed_for([table]))
