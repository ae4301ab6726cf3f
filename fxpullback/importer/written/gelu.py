"""GELU: `x * (1 + erf(x / sqrt 2)) / 2`, however it is bracketed."""

from __future__ import annotations

import math

from onnx import NodeProto

from fxpullback.importer.written.graph import Graph, replaced, spelled


def gelu(graph: Graph, last: NodeProto) -> NodeProto | None:
    """The last product of a GELU as `Gelu`, with the name of its `Erf`."""
    if last.op_type not in ("Mul", "Div") or not spelled(last, "aten.gelu"):
        return None
    for erf in _erfs(graph, last):
        if (x := _of(graph, erf, last)) is not None:
            return replaced(last, "Gelu", [x], erf)
    return None


def _erfs(graph: Graph, last: NodeProto) -> list[NodeProto]:
    """The `Erf` nodes up to three products and a sum in front of a node."""
    found, waiting = list[NodeProto](), [(last, 0)]
    while waiting:
        node, far = waiting.pop()
        for name in node.input:
            maker = graph.maker(name, "Erf", "Add", "Mul", "Div")
            if maker is not None and maker.op_type == "Erf":
                found.append(maker)
            elif maker is not None and far < 2:
                waiting.append((maker, far + 1))
    return found


def _of(graph: Graph, erf: NodeProto, last: NodeProto) -> str | None:
    """What a GELU is of, where it ends with `last`."""
    x = graph.times(erf.input[0], math.sqrt(0.5))
    plus = graph.only_reader(erf.output[0], "Add")
    if x is None or plus is None or not graph.is_number(graph.other(plus, erf.output[0]), 1.0):
        return None
    product = graph.only_reader(plus.output[0], "Mul")
    if product is None:
        return None
    factor = graph.other(product, plus.output[0])
    if graph.times(factor, 0.5) == x and product is last:
        return x
    end = graph.only_reader(product.output[0], "Mul") or graph.only_reader(product.output[0], "Div")
    if end is not last:
        return None
    left = graph.other(last, product.output[0])
    halved = graph.is_number(left, 0.5 if last.op_type == "Mul" else 2.0)
    if (factor == x and halved) or (graph.is_number(factor, 0.5) and left == x and last.op_type == "Mul"):
        return x
    return None
