"""Statistics and norms of torch as its exporters write them: variances, inverse roots, linear layers, RMSNorm."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from fxpullback.importer.written.graph import OURS, Graph, in_module, replaced, said, spelled

_VARIANCES = ("aten.var", "aten.var_mean", "prims.var", "aten.std", "aten.std_mean")


def variance(graph: Graph, last: NodeProto) -> NodeProto | None:
    """The mean square of what is left without the mean, as one node: its correction too, `v n / (n - c)`."""
    if last.op_type not in ("ReduceMean", "Div") or not spelled(last, *_VARIANCES):
        return None
    if last.op_type == "ReduceMean":
        return _mean_square(graph, last, last, 0.0)
    product = graph.inner(last.input[0], "Mul")
    for core, count in (product.input, product.input[::-1]) if product is not None else ():
        mean, correction = graph.inner(core, "ReduceMean"), _correction(graph, count, last.input[1])
        if mean is not None and correction is not None:
            return _mean_square(graph, mean, last, correction, graph.numbers.get(count, 0.0))
    return None


def _correction(graph: Graph, count: str, less: str) -> float | None:
    """By how much the count is less where it divides."""
    if count in graph.numbers and less in graph.numbers:
        return graph.numbers[count] - graph.numbers[less]
    made = graph.maker(less, "Sub")
    return None if made is None or made.input[0] != count else graph.numbers.get(made.input[1])


def _mean_square(
    graph: Graph, mean: NodeProto, last: NodeProto, correction: float, count: float = 0.0
) -> NodeProto | None:
    square = graph.inner(mean.input[0], "Mul")
    if square is None or square.input[0] != square.input[1]:
        return None
    shared = spelled(last, *_VARIANCES, silent=False)  # what is said to be a variance may share what it centres
    centred = graph.maker(square.input[0], "Sub") if shared else graph.inner(square.input[0], "Sub", reads=2)
    inner = None if centred is None else graph.maker(centred.input[1], "ReduceMean")
    if centred is None or inner is None or inner.input[0] != centred.input[0] or not said(inner, "keepdims", 1):
        return None
    axes = _axes(graph, mean)
    if axes is None or axes != _axes(graph, inner):
        return None
    settings = {"axes": axes, "keepdims": said(mean, "keepdims", 1), "correction": correction, "count": count}
    return replaced(last, "Variance", [centred.input[0]], last, OURS, **settings)


def _axes(graph: Graph, node: NodeProto) -> list[int] | None:
    if len(node.input) > 1:
        held = graph.constants.get(node.input[1])
        return None if held is None else [int(axis) for axis in np.sort(held.reshape(-1))]
    axes = said(node, "axes")
    return None if axes is None else sorted(axes)


def deviation(graph: Graph, last: NodeProto) -> NodeProto | None:
    """The root of a variance, as one node."""
    if last.op_type != "Sqrt" or not spelled(last, "aten.std", "aten.std_mean"):
        return None
    made = graph.makers.get(last.input[0])
    if made is None or (made.domain, made.op_type) != (OURS, "Variance") or len(graph.readers[last.input[0]]) != 1:
        return None
    settings = {name: said(made, name) for name in ("axes", "keepdims", "correction", "count")}
    return replaced(last, "Deviation", [made.input[0]], last, OURS, **settings)


def inverse_root(graph: Graph, last: NodeProto) -> NodeProto | None:
    """One over a root, as `torch.rsqrt`: a quotient of one exporter, a reciprocal of the other, which says so."""
    if last.op_type == "Div" and graph.numbers.get(last.input[0]) == 1.0 and spelled(last, "aten.rsqrt"):
        root = graph.inner(last.input[1], "Sqrt")
    elif last.op_type == "Reciprocal" and spelled(last, "aten.rsqrt", silent=False):
        root = graph.inner(last.input[0], "Sqrt")
    else:
        return None
    return None if root is None else replaced(last, "Rsqrt", [root.input[0]], last, OURS)


def rms_norm(graph: Graph, last: NodeProto) -> NodeProto | None:
    """A value over the root of its mean square, times a weight, as `RMSNormalization` where it is `torch.nn.RMSNorm`.

    It follows `inverse_root`.
    """
    if last.op_type != "Mul" or not in_module(last, "torch.nn.RMSNorm"):
        return None
    for normed, weight in (last.input, last.input[::-1]):
        product = graph.inner(normed, "Mul")
        if product is None or weight not in graph.constants:
            continue
        for x, inverse in (product.input, product.input[::-1]):
            epsilon = _epsilon(graph, inverse, x, graph.constants[weight].ndim)
            if epsilon is not None:
                rank = graph.constants[weight].ndim
                return replaced(last, "RMSNormalization", [x, weight], last, axis=-rank, epsilon=epsilon)
    return None


def _epsilon(graph: Graph, inverse: str, x: str, rank: int) -> float | None:
    """What is added to the mean square of x over its last axes in front of the inverse root."""
    root = graph.makers.get(inverse)
    total = None if root is None or root.op_type != "Rsqrt" else graph.inner(root.input[0], "Add")
    found = None if total is None else graph.with_number(total)
    mean = None if found is None else graph.inner(found[0], "ReduceMean")
    square = None if mean is None else graph.inner(mean.input[0], "Pow", "Mul")
    if found is None or mean is None or square is None or square.input[0] != x:
        return None
    squared = graph.is_number(square.input[1], 2.0) if square.op_type == "Pow" else square.input[1] == x
    axes = _axes(graph, mean)
    return found[1] if squared and axes is not None and len(axes) == rank else None


def layer_norm(graph: Graph, last: NodeProto) -> NodeProto | None:
    """A value without its mean over the root of its variance, over the last axes, with weight and bias as one node.

    So it is written for operators of before version 17.
    """
    bias, product = _with_constant(graph, last, "Add")
    weight, quotient = _with_constant(graph, product, "Mul")
    bare = quotient.op_type == "Div"
    found = _normed(graph, quotient) if bare and spelled(last, "aten.layer_norm", "aten.native_layer_norm") else None
    if found is None:
        return None
    x, axes, epsilon = found
    sizes = [graph.constants[name].shape for name in (weight, bias) if name]
    if axes != [*range(-len(axes), 0)] or any(len(shape) != len(axes) for shape in sizes):
        return None
    return replaced(last, "LayerNorm", [x, weight, bias], quotient, OURS, axes=len(axes), epsilon=epsilon)


def _with_constant(graph: Graph, node: NodeProto, kind: str) -> tuple[str, NodeProto]:
    """The constant that a node multiplies with or adds, and what makes its other argument; else the node."""
    for one, other in (node.input, node.input[::-1]) if node.op_type == kind and not node.domain else ():
        made = graph.inner(one, "Mul", "Div")
        if made is not None and other in graph.constants and graph.constants[other].ndim > 0:
            return str(other), made
    return "", node


def _normed(graph: Graph, quotient: NodeProto) -> tuple[str, list[int], float] | None:
    """What a quotient normalises, over which axes, and what is added to the variance."""
    centred, root = graph.maker(quotient.input[0], "Sub"), graph.inner(quotient.input[1], "Sqrt")
    total = None if root is None else graph.inner(root.input[0], "Add")
    found = None if total is None else graph.with_number(total)
    mean = None if found is None else graph.inner(found[0], "ReduceMean")
    square = None if mean is None else graph.inner(mean.input[0], "Pow", "Mul")
    if centred is None or found is None or mean is None or square is None:
        return None
    name, reads = centred.output[0], 2 if square.op_type == "Pow" else 3
    squared = graph.is_number(square.input[1], 2.0) if square.op_type == "Pow" else square.input[1] == name
    inner = graph.inner(centred.input[1], "ReduceMean")
    if square.input[0] != name or not squared or inner is None or graph.inner(name, "Sub", reads=reads) is None:
        return None
    axes = _axes(graph, mean)
    alike = inner.input[0] == centred.input[0] and axes is not None and axes == _axes(graph, inner)
    kept = said(inner, "keepdims", 1) and said(mean, "keepdims", 1)
    return (str(centred.input[0]), axes, found[1]) if alike and kept and axes is not None else None


def linear(graph: Graph, last: NodeProto) -> NodeProto | None:
    """A product with a constant matrix and a bias that is added, as the linear layer that it is."""
    if last.op_type != "Add":
        return None
    for product, bias in (last.input, last.input[::-1]):
        made, held = graph.inner(product, "MatMul"), graph.constants.get(bias)
        weight = None if made is None else graph.constants.get(made.input[1])
        if made is None or held is None or weight is None or weight.ndim != 2 or held.shape != weight.shape[1:]:
            continue
        return replaced(last, "Linear", [*made.input, bias], made, OURS)
    return None
