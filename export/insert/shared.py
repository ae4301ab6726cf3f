"""Which values of a file the pullback beside it reads: the nodes that hold them become inputs of the part put in."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

import onnx_ir as ir
import torch
from torch import fx

from fxpullback.export.onnx.translate.builder import Builder as Onnx
from fxpullback.graph.builder import Builder
from fxpullback.graph.compilation import Compilation
from fxpullback.graph.ir import FILE_VALUE, TRANSPOSES, aten, calls, depends_on, outputs, placeholders
from fxpullback.graph.module import Graph
from fxpullback.graph.rebuild import Site, append, tidy
from fxpullback.graph.value import Value

SHARED = "shared"
GUARD = aten.clone.default


@dataclass(frozen=True)
class Sharing:
    """What of a file its pullback reads.

    Attributes:
        anew: names of values that it computes anew, though the file has them.
        guarded: whether what it computes anew is kept apart from the nodes of the file, which ONNX Runtime would
            otherwise find to be the same.
    """

    anew: frozenset[str] = frozenset()
    guarded: bool = False


def guard(builder: Onnx, x: ir.Value, *_: object) -> ir.Value:
    """The greatest of one tensor, which is that tensor, and which no runtime takes for the tensor itself."""
    return builder.op("Max", x)


def cut_at_values(gm: Graph, available: Collection[str], sharing: Sharing) -> tuple[Graph, dict[str, str]]:
    """A graph whose nodes that hold values of the file read them there.

    Args:
        gm: the graph that runs, compiled beside its file.
        available: names of the values of the file that may be read.
        sharing: which of them are, and how.

    Returns:
        The graph, with one more placeholder for each value that it reads; and the names of these values by that of
        the placeholder.
    """
    cut = _Cut(gm, available, sharing)
    append(cut.builder, gm, cut.env, cut.at, moved=None)
    results = tuple(cut.env[n] for n in outputs(gm.graph))
    made = tidy(cut.builder.finish(results))
    shared = dict(cut.shared)
    for node in placeholders(made.graph):
        if node.name in shared and not node.users:
            made.graph.erase_node(node)
            del shared[node.name]
    made.recompile()
    return made, shared


class _Cut:
    """The graph under construction.

    Attributes:
        shared: names of the values by those of the placeholders.
    """

    def __init__(self, gm: Graph, available: Collection[str], sharing: Sharing) -> None:
        self.available, self.sharing = available, sharing
        self.builder = Builder(gm, Compilation())
        self.env = {n: self.builder.placeholder(str(n.target), n.meta["val"]) for n in placeholders(gm.graph)}
        self.shared: dict[str, str] = {}
        self.places: dict[str, Value] = {}
        self.guards: dict[str, Value] = {}
        self.given = {value.node for value in self.env.values()}
        self.behind = depends_on(gm.graph, [n for n in calls(gm.graph) if TRANSPOSES in n.meta])
        for node in calls(gm.graph):
            found = self._held(node)
            if found is not None and found[0] not in self.places:
                name = f"{SHARED}_{len(self.shared)}"
                self.places[found[0]], self.shared[name] = self.builder.placeholder(name, node.meta["val"]), found[0]
        self.given |= {value.node for value in self.places.values()}

    def at(self, site: Site) -> object:
        """What stands for one node."""
        found = self._held(site.node)
        if found is not None:
            name, factor = found
            value = self.places[name]
            return value if factor == 1.0 else cast(Any, self._apart(value)) * (1 / factor)
        if not self.sharing.guarded or site.node in self.behind or site.node.op != "call_function":
            return site.copy()
        read = [n for n in site.node.all_input_nodes if isinstance(self.env[n], Value)]
        return site.copy({n: self._apart(self.env[n]) for n in read if self.env[n].node in self.given})

    def _apart(self, value: Value) -> Value:
        """A value that is given, kept apart from the same for the file's own nodes."""
        if not self.sharing.guarded or not value.node.meta["val"].is_floating_point():
            return value
        if value.node.name not in self.guards:
            self.guards[value.node.name] = self.builder.call(GUARD, (value,), {})
        return self.guards[value.node.name]

    def _held(self, node: fx.Node) -> tuple[str, float] | None:
        """The value of the file that a node holds, and by what factor the node must be multiplied to be it."""
        held = node.meta.get(FILE_VALUE, {}) if node.op == "call_function" else {}
        found = [
            (abs(factor - 1), name, factor)
            for name, factor in held.items()
            if name in self.available and name not in self.sharing.anew
        ]
        return min(found)[1:] if found and isinstance(node.meta["val"], torch.Tensor) else None
