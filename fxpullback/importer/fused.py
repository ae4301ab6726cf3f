"""What exporters write out in several nodes, as one node again: then it is the gate that it is, under one name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnx import NodeProto

from fxpullback.importer.numbers import Array
from fxpullback.importer.read import graphs_of
from fxpullback.importer.written import gates, norms, views
from fxpullback.importer.written.attention import attention
from fxpullback.importer.written.gelu import gelu
from fxpullback.importer.written.graph import Graph
from fxpullback.importer.written.softmax import softmax

Pattern = Callable[[Graph, NodeProto], NodeProto | None]
PATTERNS: tuple[Pattern, ...] = (
    norms.linear, gelu, softmax, attention, gates.softplus, gates.silu, gates.hard_swish, gates.mish,
    gates.log_sigmoid, gates.threshold, gates.clamped, gates.largest, gates.hard_shrink, gates.soft_shrink,
    norms.variance, norms.deviation, norms.inverse_root, norms.rms_norm, norms.layer_norm, views.strided,
)  # fmt: skip
"""Each takes the last node of what it is looking for, and returns the one to put in its place."""


def fused(nodes: Sequence[NodeProto], constants: Mapping[str, Array], outputs: Sequence[str]) -> list[NodeProto]:
    """The nodes with every pattern as one node; those that only it read are still there, and read by nothing.

    Args:
        nodes: in order.
        constants: by name.
        outputs: names of values that are read from outside.
    """
    made = list(nodes)
    for pattern in PATTERNS:
        graph = Graph.of(made, constants, outputs)
        made = [pattern(graph, node) or node if not node.domain else node for node in made]
        made = needed(made, outputs)
    return made


def needed(nodes: Sequence[NodeProto], wanted: Sequence[str]) -> list[NodeProto]:
    """The nodes that some outputs need, in their order."""
    names, found = set(wanted), list[NodeProto]()
    for node in reversed(nodes):
        if any(name in names for name in node.output if name):
            found.append(node)
            names.update(reads(node))
    return found[::-1]


def reads(node: NodeProto) -> set[str]:
    """What a node reads, its inner graphs included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in graphs_of(attribute):
            names |= {name for inner in graph.node for name in reads(inner)} | {out.name for out in graph.output}
    return names
