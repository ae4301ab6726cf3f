"""Scaled dot-product attention as both exporters of torch write it: queries and keys times the root of the scale.

A forward that writes attention out itself scales the queries or the scores alone, and stays written out.
"""

from __future__ import annotations

from onnx import NodeProto

from fxpullback.importer.written.graph import NEAR, OURS, Graph, replaced, said, spelled


def attention(graph: Graph, last: NodeProto) -> NodeProto | None:
    """The last product of an attention as one node.

    It reads queries, keys turned, values, a mask that is added, the root of the scale, and where they are known the
    keys as they were and the sizes that they were turned by.
    """
    if last.op_type != "MatMul" or not spelled(last, "aten.scaled_dot_product_attention"):
        return None
    if (softmax := _softmax(graph, last.input[0])) is None:
        return None
    found = _scores(graph, softmax.input[0])
    if found is None:
        return _guarded(graph, last, softmax)
    product, mask = found
    queries, keys = (graph.inner(name, "Mul") for name in product.input)
    if queries is None or keys is None:
        return None
    for q, root in (queries.input, queries.input[::-1]):
        for k, other in (keys.input, keys.input[::-1]):
            if _alike(graph, root, other):
                given = [q, k, last.input[1], mask, root, *_turned(graph, k)]
                return replaced(last, "Attention", given, softmax, OURS)
    return None


def _guarded(graph: Graph, last: NodeProto, softmax: NodeProto) -> NodeProto | None:
    """Attention with a guard for rows that are masked whole, its scale in one product as ONNX Runtime leaves it."""
    total = graph.inner(softmax.input[0], "Add")
    if graph.maker(last.input[0], "Where") is None or total is None:
        return None
    for scores, mask in (total.input, total.input[::-1]):
        product = graph.makers.get(scores)
        fused = product is not None and (product.domain, product.op_type) == ("com.microsoft", "FusedMatMul")
        if product is None or not fused or said(product, "transA", 0) or len(graph.readers[scores]) != 1:
            continue
        turned = 1 - said(product, "transB", 0)
        given = [product.input[0], product.input[1], last.input[1], mask]
        scale = said(product, "alpha", 1.0)
        return replaced(last, "Attention", given, softmax, OURS, scale=scale, turned=turned)
    return None


def _softmax(graph: Graph, weights: str) -> NodeProto | None:
    """The softmax of weights that nothing else reads, a guard for rows that are masked whole in between or not."""
    guard = graph.inner(weights, "Where")
    if guard is None:
        found = graph.inner(weights, "Softmax")
    else:
        test, zero, weights = guard.input
        nan = graph.inner(test, "IsNaN")
        if nan is None or nan.input[0] != weights or graph.numbers.get(zero) != 0.0:
            return None
        found = graph.inner(weights, "Softmax", reads=2)
    return found if found is not None and said(found, "axis", -1) == -1 else None


def _scores(graph: Graph, name: str) -> tuple[NodeProto, str] | None:
    """The product of queries and keys, and the mask that is added to it; empty where there is none."""
    product = graph.inner(name, "MatMul")
    if product is not None:
        return product, ""
    total = graph.inner(name, "Add")
    for one, mask in (total.input, total.input[::-1]) if total is not None else ():
        if (product := graph.inner(one, "MatMul")) is not None and _scaled(graph, product):
            return product, mask
    return None


def _scaled(graph: Graph, product: NodeProto) -> bool:
    return all(graph.inner(name, "Mul") is not None for name in product.input)


def _alike(graph: Graph, root: str, other: str) -> bool:
    """Whether two factors are the same root: one number, one value, or roots of one value."""
    if root in graph.numbers and other in graph.numbers:
        return abs(graph.numbers[root] - graph.numbers[other]) <= NEAR * abs(graph.numbers[root])
    roots = [graph.maker(name, "Sqrt") for name in (root, other)]
    if roots[0] is None or roots[1] is None:
        return False
    return bool(roots[0].input[0] == roots[1].input[0])


def _turned(graph: Graph, k: str) -> list[str]:
    """The keys as they were before their last two axes changed places, and the sizes they had meanwhile."""
    maker = graph.maker(k, "Transpose", "Reshape")
    if maker is None:
        return []
    if maker.op_type == "Transpose":
        perm = list(said(maker, "perm", []))
        count = len(perm)
        return [maker.input[0]] if count > 1 and perm == [*range(count - 2), count - 1, count - 2] else []
    turned = graph.maker(maker.input[0], "Transpose")
    flat = None if turned is None else graph.maker(turned.input[0], "Reshape")
    if turned is None or flat is None or list(said(turned, "perm", [])) != [0, 2, 1]:
        return []
    return [flat.input[0], flat.input[1]]
