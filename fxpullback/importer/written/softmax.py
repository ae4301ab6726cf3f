"""Softmax as JAX and TensorFlow write it: exponentials over their sum, the largest entry taken off in front."""

from __future__ import annotations

import math

from onnx import NodeProto

from fxpullback.importer.written.graph import OURS, Graph, replaced, said

_LAID_OUT = ("Reshape", "Expand", "Unsqueeze", "Identity", "Squeeze")


def softmax(graph: Graph, last: NodeProto) -> NodeProto | None:
    """`exp(x - max(x)) / sum(exp(x - max(x)))` as one node; `exp(x) / sum(exp(x))`, too."""
    if last.op_type != "Div":
        return None
    shares = graph.inner(last.input[0], "Exp", reads=2)
    total = _along(graph, last.input[1], "ReduceSum")
    if shares is None or total is None or total[0] != last.input[0]:
        return None
    less = graph.inner(shares.input[0], "Sub")
    x = shares.input[0]
    if less is not None:
        largest = _along(graph, less.input[1], "ReduceMax")
        if largest is not None and largest == (less.input[0], total[1]):
            x = less.input[0]
    return replaced(last, "Softmax", [x], shares, OURS, axis=total[1])


def _along(graph: Graph, name: str, kind: str) -> tuple[str, int] | None:
    """What a value is the sum or the largest entry of, and along which axis, the axis kept or put back."""
    made = graph.makers.get(name)
    while made is not None and made.op_type in (*_LAID_OUT, "Max") and not made.domain:
        if made.op_type == "Max":
            found = graph.with_number(made) if len(made.input) == 2 else None
            if found is None or found[1] != -math.inf:
                return None
            made = graph.makers.get(found[0])
        else:
            made = graph.makers.get(made.input[0])
    if made is None or made.op_type != kind or made.domain:
        return None
    axes = said(made, "axes")
    if axes is None and len(made.input) > 1 and made.input[1] in graph.constants:
        axes = graph.constants[made.input[1]].reshape(-1).tolist()
    return (str(made.input[0]), int(axes[0])) if axes is not None and len(axes) == 1 else None
