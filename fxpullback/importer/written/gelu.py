"""GELU: `x * (1 + erf(x / sqrt 2)) / 2`, however it is bracketed, and its tanh form."""

from __future__ import annotations

import math

from onnx import NodeProto

from fxpullback.importer.written.graph import Graph, replaced, spelled


def gelu(graph: Graph, last: NodeProto) -> NodeProto | None:
    """The last product of a GELU as `Gelu`, with the name of its `Erf` or `Tanh`."""
    if last.op_type not in ("Mul", "Div") or not spelled(last, "aten.gelu"):
        return None
    for curve in _curves(graph, last):
        if (x := _of(graph, curve, last)) is not None:
            return replaced(last, "Gelu", [x], curve, approximate="none" if curve.op_type == "Erf" else "tanh")
    return None


def _curves(graph: Graph, last: NodeProto) -> list[NodeProto]:
    """The `Erf` and `Tanh` nodes up to three products and a sum in front of a node."""
    found, waiting = list[NodeProto](), [(last, 0)]
    while waiting:
        node, far = waiting.pop()
        for name in node.input:
            maker = graph.maker(name, "Erf", "Tanh", "Add", "Mul", "Div")
            if maker is not None and maker.op_type in ("Erf", "Tanh"):
                found.append(maker)
            elif maker is not None and far < 2:
                waiting.append((maker, far + 1))
    return found


def _cubic(graph: Graph, name: str) -> str | None:
    """The x of `sqrt(2 / pi) (x + 0.044715 x x x)`; a cube by `Pow` is none that torch's own GELU is written with."""
    total = graph.maker(graph.times(name, math.sqrt(2 / math.pi)) or "", "Add")
    for x, term in (total.input, total.input[::-1]) if total is not None else ():
        cube = graph.maker(graph.times(term, 0.044715) or "", "Mul")
        square = graph.maker(graph.other(cube, x), "Mul") if cube is not None and x in cube.input else None
        if square is not None and [*square.input] == [x, x]:
            return str(x)
    return None


def _of(graph: Graph, curve: NodeProto, last: NodeProto) -> str | None:
    """What a GELU is of, where it ends with `last`."""
    argument = curve.input[0]
    x = graph.times(argument, math.sqrt(0.5)) if curve.op_type == "Erf" else _cubic(graph, argument)
    plus = graph.only_reader(curve.output[0], "Add")
    if x is None or plus is None or not graph.is_number(graph.other(plus, curve.output[0]), 1.0):
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
