"""Which operators of a half-precision graph stay in float32.

Half precision is safe for products, which accumulate in float32 inside, for what moves numbers, and for plain
arithmetic. Everything else is an island: exponentials, Phi and softmax, statistics and other sums, roots and
reciprocals, and every operator that is not listed here. So is whatever reads a number or a constant that the type
cannot hold.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from fxpullback.graph.ir import (
    GETITEM,
    arg,
    aten,
    attribute,
    calls,
    input_nodes,
    is_float_tensor,
    is_size,
    schema_arguments,
)
from fxpullback.graph.module import Graph
from fxpullback.lowering.folding import LAYOUT

PRODUCTS = {
    aten.convolution.default,
    aten.linear.default,
    aten.matmul.default,
    aten.mm.default,
    aten.bmm.default,
    aten.addmm.default,
    aten.baddbmm.default,
}
"""Sums of products: half-precision operands, accumulated in float32 by every kernel of note."""

BOUNDED_GATES = {
    aten.sigmoid.default,
    aten.tanh.default,
    aten.silu.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.hardtanh.default,
    aten.relu6.default,
    aten.leaky_relu.default,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.max_pool2d_with_indices.default,
    aten.col2im.default,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest2d.default,
}
"""What neither overflows where its input does not, nor loses more than a rounding."""

MOVES = LAYOUT | {
    GETITEM,
    aten.view.default,
    aten._unsafe_view.default,
    aten.cat.default,
    aten.stack.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.unbind.int,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.chunk.default,
    aten.index_select.default,
    aten.constant_pad_nd.default,
    aten.im2col.default,
    aten.repeat.default,
    aten.roll.default,
    aten.clone.default,
    aten.squeeze.dims,
    aten.unflatten.int,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.channel_shuffle.default,
}
"""What moves numbers and computes none: done in the type that its input and its readers are in."""

COMPARISONS = {
    getattr(getattr(aten, name), kind) for name in ("gt", "ge", "lt", "le", "eq", "ne") for kind in ("Scalar", "Tensor")
}

ARITHMETIC = COMPARISONS | {
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.rsub.Scalar,
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.neg.default,
    aten.abs.default,
    aten.sign.default,
    aten.relu.default,
    aten.clamp.default,
    aten.clamp_min.default,
    aten.clamp_max.default,
    aten.maximum.default,
    aten.minimum.default,
    aten.amax.default,
    aten.amin.default,
    aten.where.self,
    aten.where.ScalarSelf,
    aten.where.ScalarOther,
    aten.where.Scalar,
}
"""One rounding at most: in float32 where all that reads it is, else in half precision."""

UNBOUNDED = {
    aten.exp.default,
    aten.expm1.default,
    aten.log.default,
    aten.sqrt.default,
    aten.rsqrt.default,
    aten.reciprocal.default,
    aten.pow.Tensor_Scalar,
    aten.pow.Tensor_Tensor,
    aten.square.default,
    aten.mean.dim,
    aten.mean.default,
    aten.sum.dim_IntList,
    aten.sum.default,
    aten.var.correction,
    aten.native_layer_norm.default,
    aten.native_group_norm.default,
}
"""Islands whose results half precision may not hold: arithmetic on them is done in float32 as well."""

NO_BFLOAT16 = {
    aten.constant_pad_nd.default,
    aten.im2col.default,
    aten.col2im.default,
    aten.roll.default,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.channel_shuffle.default,
    aten.sign.default,
    aten.clamp.default,
    aten.clamp_min.default,
    aten.clamp_max.default,
    aten.amax.default,
    aten.amin.default,
    aten.hardtanh.default,
    aten.relu6.default,
    aten.leaky_relu.default,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.max_pool2d_with_indices.default,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest2d.default,
    *COMPARISONS,
}
"""What becomes ONNX operators that no provider of ONNX Runtime has a bfloat16 kernel for, by its documentation:
padding, clipping, extremes and their pools. Transposed convolutions are the same."""

CAST = aten._to_copy.default


def float32_nodes(gm: fx.GraphModule, dtype: torch.dtype) -> set[fx.Node]:
    """The nodes that stay in float32.

    Args:
        gm: lowered graph in float32.
        dtype: the half-precision type of all others.

    Returns:
        Islands; and of moves and plain arithmetic what is read by them alone, or lies between two of them. Constants
        that the type cannot hold are among them, and those that a rule computed in float64, for sums that cancel.
    """
    exact = gm.exact.keys() - gm.scaled if isinstance(gm, Graph) else frozenset()
    constants = [n for n in gm.graph.nodes if n.op == "get_attr"]
    islands = {n for n in constants if n.target in exact or not held(attribute(gm, str(n.target)), dtype)}
    for node in calls(gm.graph):
        if not is_size(node) and _is_island(node, islands, dtype):
            islands.add(node)
    wide: set[fx.Node] = set()
    for node in reversed(gm.graph.nodes):
        users = [user for user in node.users if user.op == "output" or not is_size(user)]
        wanted = [user.op == "output" or user in wide for user in users]
        flexible = node.op == "call_function" and node.target in MOVES | ARITHMETIC
        between = node.target in MOVES and _origin(node) in islands and any(wanted)
        if node in islands or (flexible and bool(wanted) and all(wanted)) or between:
            wide.add(node)
    return wide


def _is_island(node: fx.Node, islands: set[fx.Node], dtype: torch.dtype) -> bool:
    if dtype is torch.bfloat16 and (node.target in NO_BFLOAT16 or _is_transposed(node)):
        return True
    if node.target is GETITEM or node.target in MOVES:
        return False
    if node.target is CAST:
        return is_float_tensor(arg(node, 0))
    if node.target not in PRODUCTS | BOUNDED_GATES | ARITHMETIC or not _numbers_held(node, dtype):
        return True
    origins = [_origin(n) for n in input_nodes(node) if not is_size(n)]
    if any(n.op == "get_attr" and n in islands for n in origins):
        return True
    if node.target not in ARITHMETIC:
        return False
    divides = node.target is aten.div.Tensor and is_float_tensor(arg(node, 1)) and origins[-1].op != "get_attr"
    return divides or any(n.target in UNBOUNDED and not _is_normalised(n, node) for n in origins)


def _is_transposed(node: fx.Node) -> bool:
    return node.target is aten.convolution.default and bool(schema_arguments(node)[6])


def _is_normalised(origin: fx.Node, reader: fx.Node) -> bool:
    """Whether a reader sees the first result of a norm, which is of size one, and none of its statistics."""
    if origin.target not in (aten.native_layer_norm.default, aten.native_group_norm.default):
        return False
    found = [n for n in input_nodes(reader) if not is_size(n) and _origin(n) is origin]
    return all(_item(n) == 0 for n in found)


def _item(node: fx.Node) -> int:
    while node.target is not GETITEM:
        node = input_nodes(node)[0]
    return int(arg(node, 1))


def _origin(node: fx.Node) -> fx.Node:
    """What made the numbers that a chain of moves brings here, by the first input of each."""
    while node.op == "call_function" and node.target in MOVES and input_nodes(node):
        node = input_nodes(node)[0]
    return node


def _numbers_held(node: fx.Node, dtype: torch.dtype) -> bool:
    """Whether the type holds the plain numbers among an operator's arguments."""
    kinds: Any = (int, float) if node.target in ARITHMETIC else float
    numbers = [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, kinds) and not isinstance(a, bool)]
    return all(held(torch.tensor(float(n), dtype=torch.float64), dtype) for n in numbers)


def held(constant: Tensor, dtype: torch.dtype) -> bool:
    """Whether a type holds a constant: no finite entry overflows, and none is off by more than the type's rounding of
    the largest entry, as all are where the whole constant underflows."""
    if not constant.is_floating_point() or not constant.numel():
        return True
    finite = constant.detach().double()
    finite = finite[torch.isfinite(finite)]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    if largest > torch.finfo(dtype).max:
        return False
    error = float((finite.to(dtype).double() - finite).abs().max()) if finite.numel() else 0.0
    return math.isfinite(error) and error <= torch.finfo(dtype).eps * largest
