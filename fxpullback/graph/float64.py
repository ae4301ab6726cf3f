"""The same graph in another floating-point type."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from fxpullback.graph.module import Graph, signature_of

aten = torch.ops.aten
VOLUME = 5  # axes of a batch of volumes

Memo = dict[tuple[Any, ...], Tensor]


def in_float64(gm: fx.GraphModule, memo: Memo | None = None) -> Graph:
    """A copy of a graph with its constants, and the types its operators name, in float64.

    Args:
        gm: the graph, left as it is.
        memo: constants widened before, shared between graphs that share them.
    """
    memo = {} if memo is None else memo
    exact = gm.exact if isinstance(gm, Graph) else {}
    root = nn.Module()
    for node in gm.graph.nodes:
        if node.op == "get_attr" and not hasattr(root, str(node.target)):
            tensor = getattr(gm, str(node.target)).detach()
            key = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)
            if key not in memo:
                memo[key] = _wide_copy(exact.get(str(node.target), tensor))
            root.register_buffer(str(node.target), memo[key])
    graph = fx.Graph()
    result = graph.graph_copy(gm.graph, {}, return_output_node=False)
    graph.output(result)
    for node in graph.nodes:
        if node.op == "call_function":
            node.args, node.kwargs = widened(node.args), widened(node.kwargs)
            if _makes_floats(node):
                node.kwargs = {**node.kwargs, "dtype": torch.float64}
            if node.target is aten.convolution.default and len(node.args[3]) == VOLUME - 2:  # its strides
                node.target = convolution
    return Graph(root, graph, signature_of(gm), exact)


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int],
    transposed: bool, output_padding: list[int], groups: int,
) -> Tensor:  # fmt: skip
    """`aten.convolution` of volumes, to no more channels by way of a transposed convolution: the same sums.

    In float64 torch lays out the window of every place first, all input channels of it: 6 GB for 64 of them, 7^3
    windows and 32^3 places. A transposed convolution lays out the output channels instead.
    """
    pads = [d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], padding, strict=True)]
    few = not transposed and groups == 1 and weight.shape[0] <= weight.shape[1]
    if few and set(stride) == {1} and min(pads) >= 0:
        turned = weight.transpose(0, 1).flip([2, 3, 4])
        return torch.conv_transpose3d(x, turned, bias, 1, pads, 0, 1, dilation)
    result: Tensor = aten.convolution.default(
        x, weight, bias, stride, padding, dilation, transposed, output_padding, groups
    )
    return result


def _makes_floats(node: fx.Node) -> bool:
    """Whether a call makes floats of numbers alone, as `zeros([3])` does, of the default type if it names none."""
    value = node.meta.get("val")
    if (
        not isinstance(value, Tensor)
        or not value.is_floating_point()
        or not isinstance(node.target, torch._ops.OpOverload)
    ):
        return False
    named = any(argument.name == "dtype" for argument in node.target._schema.arguments)
    return named and not any(isinstance(n.meta.get("val"), Tensor) for n in node.all_input_nodes)


def _wide_copy(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float64, copy=True) if tensor.is_floating_point() else tensor


def widened(tree: Any) -> Any:
    """Arguments of a call with float64 in place of every other floating-point type that they name."""
    if isinstance(tree, tuple | list):
        return type(tree)(widened(t) for t in tree)
    if isinstance(tree, dict):
        return {k: widened(v) for k, v in tree.items()}
    return torch.float64 if tree in (torch.float32, torch.float16, torch.bfloat16) else tree
