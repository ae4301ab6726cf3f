"""Views that the newer exporter writes as lookups of entries."""

from __future__ import annotations

import ast
import re

from onnx import NodeProto

from fxpullback.importer.written.graph import OURS, Graph, beside, replaced, spelled


def strided(graph: Graph, last: NodeProto) -> NodeProto | None:
    """`as_strided` of entries one behind the other, a lookup in all of them, as the reshape that it is.

    Its sizes and strides stand beside the node; the batch, whose size is a symbol there, comes first.
    """
    if last.op_type != "Gather" or not spelled(last, "aten.as_strided", silent=False):
        return None
    flat = graph.maker(last.input[0], "Reshape")
    said = re.search(r"args = \(%\w+, (\[.*?\]), (\[.*?\])\)", beside(last, "fx_node"))
    if flat is None or said is None or list(graph.constants.get(flat.input[1], ())) != [-1]:
        return None
    sizes = ast.literal_eval(re.sub(r"%\w+", "-1", said[1]))
    strides = ast.literal_eval(re.sub(r"%\w+", "-1", said[2]))
    return replaced(last, "View", [flat.input[0]], last, OURS, sizes=sizes) if _behind(sizes, strides) else None


def _behind(sizes: list[int], strides: list[int]) -> bool:
    """Whether entries lie one behind the other; one axis alone has a size that is free, the first."""
    wanted = 1
    for place, (size, stride) in reversed([*enumerate(zip(sizes, strides, strict=True))]):
        if size != 1 and stride != wanted:
            return False
        if size == -1 and place > 0:
            return False
        wanted *= size
    return True
