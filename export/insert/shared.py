"""Which values of a file the pullback beside it reads: the nodes that hold them become inputs of the part put in."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from torch import fx

from fxpullback.graph.builder import Builder
from fxpullback.graph.compilation import Compilation
from fxpullback.graph.ir import FILE_VALUE
from fxpullback.graph.module import Graph, signature_of
from fxpullback.graph.rebuild import Site, append, tidy
from fxpullback.graph.value import Value

SHARED = "shared"


def cut_at_values(gm: Graph, available: Collection[str], kept: Collection[str] = ()) -> tuple[Graph, dict[str, str]]:
    """A graph whose nodes that hold values of the file read them there.

    Args:
        gm: the graph that runs, compiled beside its file.
        available: names of the values of the file that may be read.
        kept: names among them that are computed anew all the same.

    Returns:
        The graph, with one more placeholder for each value that it reads; and the names of these values by that of
        the placeholder.
    """
    builder, shared = Builder(gm, Compilation()), dict[str, str]()
    env: dict[fx.Node, Value] = {}
    places: dict[str, Value] = {}
    for node in gm.graph.nodes:
        if node.op == "placeholder":
            env[node] = builder.placeholder(str(node.target), node.meta["val"])
    for node in gm.graph.nodes:
        found = _held(node, available, kept)
        if found is not None and found[0] not in places:
            name = f"{SHARED}_{len(shared)}"
            places[found[0]], shared[name] = builder.placeholder(name, node.meta["val"]), found[0]

    def read(site: Site) -> object:
        found = _held(site.node, available, kept)
        if found is None:
            return site.copy()
        name, factor = found
        return places[name] if factor == 1.0 else places[name] * (1 / factor)

    append(builder, gm, env, read, moved=None)
    results = tuple(env[n] for n in gm.graph.output_node().args[0])
    made = tidy(builder.finish(results, replace(signature_of(gm))))
    for node in list(made.graph.nodes):
        if node.op == "placeholder" and node.name in shared and not node.users:
            made.graph.erase_node(node)
            del shared[node.name]
    made.recompile()
    return made, shared


def _held(node: fx.Node, available: Collection[str], kept: Collection[str]) -> tuple[str, float] | None:
    """The value of the file that a node holds, and by what factor the node must be multiplied to be it."""
    held = node.meta.get(FILE_VALUE, {}) if node.op == "call_function" else {}
    found = [(abs(factor - 1), name, factor) for name, factor in held.items() if name in available and name not in kept]
    return min(found)[1:] if found else None
