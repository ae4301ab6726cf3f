"""GELU that an exporter wrote out, as one node again: then it is the gate that it is, with the name of its `Erf`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import NodeProto

from fxpullback.importer.numbers import Array

NEAR = 1e-4


@dataclass(frozen=True)
class _Graph:
    """Who makes and who reads each value, and which values are one number."""

    makers: Mapping[str, NodeProto]
    readers: Mapping[str, list[NodeProto]]
    numbers: Mapping[str, float]

    def only_reader(self, name: str, kind: str) -> NodeProto | None:
        """The one node that reads a value, where it is of a kind."""
        found = self.readers.get(name, [])
        return found[0] if len(found) == 1 and found[0].op_type == kind else None

    def times(self, name: str, factor: float) -> str | None:
        """The value that another is, but for a factor; None where it is not."""
        maker = self.makers.get(name)
        if maker is None or maker.op_type not in ("Mul", "Div"):
            return None
        a, b = maker.input
        wanted = 1 / factor if maker.op_type == "Div" else factor
        if self.is_number(b, wanted):
            return str(a)
        return str(b) if maker.op_type == "Mul" and self.is_number(a, wanted) else None

    def is_number(self, name: str, wanted: float) -> bool:
        """Whether a value is one number."""
        found = self.numbers.get(name)
        return found is not None and abs(found - wanted) <= NEAR * abs(wanted)

    def other(self, node: NodeProto, name: str) -> str:
        """The argument of a node of two that is not `name`."""
        a, b = node.input
        return str(b if a == name else a)


def fused(nodes: Sequence[NodeProto], constants: Mapping[str, Array], outputs: Sequence[str]) -> list[NodeProto]:
    """The nodes with `x * (1 + erf(x / sqrt 2)) / 2` as `Gelu`, however it is bracketed.

    Args:
        nodes: in order.
        constants: by name.
        outputs: names of values that are read from outside.
    """
    graph = _graph(nodes, constants, outputs)
    gone, made = set[int](), dict[int, NodeProto]()
    for erf in nodes:
        if erf.op_type != "Erf" or (found := _gelu(graph, erf)) is None:
            continue
        x, inner = found
        gone |= {id(node) for node in inner}
        name = erf.name or erf.output[0]
        made[id(inner[-1])] = onnx.helper.make_node("Gelu", [x], list(inner[-1].output), name=name)
    return [made.get(id(node), node) for node in nodes if id(node) not in gone or id(node) in made]


def _graph(nodes: Sequence[NodeProto], constants: Mapping[str, Array], outputs: Sequence[str]) -> _Graph:
    readers: dict[str, list[NodeProto]] = {}
    numbers = {name: float(array.reshape(-1)[0]) for name, array in constants.items() if _is_number(array)}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
        if node.op_type == "Constant":
            held = next((onnx.numpy_helper.to_array(a.t) for a in node.attribute if a.name == "value"), None)
            if held is not None and _is_number(held):
                numbers[node.output[0]] = float(held.reshape(-1)[0])
    outside = NodeProto(op_type="outside")
    for name in outputs:
        readers.setdefault(name, []).append(outside)
    return _Graph({name: node for node in nodes for name in node.output}, readers, numbers)


def _is_number(array: Array) -> bool:
    return bool(array.size == 1 and array.dtype.kind == "f")


def _gelu(graph: _Graph, erf: NodeProto) -> tuple[str, list[NodeProto]] | None:
    """What a GELU is of, and its nodes, the last one last."""
    x = graph.times(erf.input[0], math.sqrt(0.5))
    plus = graph.only_reader(erf.output[0], "Add")
    if x is None or plus is None or not graph.is_number(graph.other(plus, erf.output[0]), 1.0):
        return None
    nodes = [*_alone(graph, erf.input[0]), erf, plus]
    product = graph.only_reader(plus.output[0], "Mul")
    if product is None:
        return None
    factor = graph.other(product, plus.output[0])
    nodes.append(product)
    if graph.times(factor, 0.5) == x:
        return x, [*_alone(graph, factor), *nodes]
    last = graph.only_reader(product.output[0], "Mul") or graph.only_reader(product.output[0], "Div")
    if last is None:
        return None
    left = graph.other(last, product.output[0])
    halved = graph.is_number(left, 0.5 if last.op_type == "Mul" else 2.0)
    if (factor == x and halved) or (graph.is_number(factor, 0.5) and left == x and last.op_type == "Mul"):
        return x, [*nodes, last]
    return None


def _alone(graph: _Graph, name: str) -> list[NodeProto]:
    """The maker of a value, where one node alone reads it."""
    return [graph.makers[name]] if len(graph.readers.get(name, [])) == 1 else []
