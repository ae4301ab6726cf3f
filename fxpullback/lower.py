"""Stage 6: from the pullback graph in injected form to the graph that runs.

`inject` becomes its primal and `stop_gradient` nothing at all: from here on the graph is plain forward arithmetic. Then
fused attention is written out, so that forward and adjoint share its weights; convolution adjoints take their best
form; what is computed twice is computed once; and what nothing reads is dropped.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from fxpullback.fold import LAYOUT, fold_constants
from fxpullback.ir import (
    GETITEM,
    INJECT,
    ORIGIN,
    STOP_GRADIENT,
    arg,
    aten,
    attribute,
    input_nodes,
    is_call,
    is_size,
    node_argument,
    schema_arguments,
)
from fxpullback.rules.attention import attention_weights, shared_heads
from fxpullback.trace import Builder, Value
from fxpullback.walk import walk

Emit = Callable[[Builder, fx.Node, tuple[Any, ...]], Any]


def lower(step: fx.GraphModule) -> fx.GraphModule:
    """Lower the pullback graph of one step.

    Args:
        step: graph (input, cotangent) -> (logits, pullback) from `differentiate`.

    Returns:
        Equivalent graph of plain forward operators, without `inject` and `stop_gradient`.
    """
    graph = erase_injections(step)
    graph = replace(graph, {aten.scaled_dot_product_attention.default: write_out_attention})
    graph = replace(graph, {aten.convolution.default: adjoint_convolution})
    graph = fold_constants(graph)
    graph = replace(graph, {aten.where.ScalarSelf: without_empty_rows})
    return simplify(graph)


def simplify(gm: fx.GraphModule) -> fx.GraphModule:
    """Merge equal nodes and drop no-ops and dead nodes; also run on the unrolled program."""
    return merge_equal(drop_no_ops(merge_equal(gm)))


def erase_injections(gm: fx.GraphModule) -> fx.GraphModule:
    """`inject(primal, soft)` is `primal` itself, with no arithmetic; `stop_gradient(x)` is `x`."""

    def visit(builder: Builder, node: fx.Node, env: dict[fx.Node, Any]) -> Any:
        if node.target in (INJECT, STOP_GRADIENT):
            return env[arg(node, 0)]
        return builder.copy(node, env)

    return walk(gm, visit)


def replace(gm: fx.GraphModule, table: dict[Any, Emit]) -> fx.GraphModule:
    """Replace calls of the operators in `table` by what its functions emit (NotImplemented keeps the call)."""

    def visit(builder: Builder, node: fx.Node, env: dict[fx.Node, Any]) -> Any:
        emit = table.get(node.target)
        if emit is None:
            return builder.copy(node, env)
        arguments = fx.map_arg(schema_arguments(node), lambda n: env[n])
        kept = {k: v for k, v in node.meta.items() if k != "val"}
        with builder.provenance(node.name, **{ORIGIN: node.name, **kept}):
            made = emit(builder, node, tuple(arguments))
        return builder.copy(node, env) if made is NotImplemented else made

    return walk(gm, visit)


def write_out_attention(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    """softmax(scale q k^T + mask) v in plain products; the pullback needs the same weights."""
    q, k, v, mask, _, is_causal, scale, enable_gqa = args
    if enable_gqa:
        k, v = shared_heads(k, q.shape[-3]), shared_heads(v, q.shape[-3])
    return torch.matmul(attention_weights(q, k, mask, is_causal, scale), v)


def without_empty_rows(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    """Attention weights as they are, where the mask is known to leave something of every row."""
    condition, _, weights = node.args
    assert isinstance(condition, fx.Node)
    assert isinstance(weights, fx.Node)
    if not _same_shape(node, weights):
        return NotImplemented
    if condition.op == "get_attr":
        return NotImplemented if bool(attribute(builder.source, str(condition.target)).any()) else args[2]
    if not is_call(condition, aten.eq.Scalar) or condition.args[1] != -math.inf:
        return NotImplemented
    extreme = node_argument(condition, 0)
    finite = is_call(extreme, aten.amax.default) and surely_finite(builder.source, node_argument(extreme, 0))
    return args[2] if finite else NotImplemented


def surely_finite(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is made of finite constants alone, laid out anew, joined, or added up."""
    if node.op == "get_attr":
        constant = attribute(gm, str(node.target))
        most = torch.finfo(constant.dtype).max if constant.is_floating_point() else math.inf
        return bool((constant.double().abs() < most / 1024).all())  # far enough from where sums become infinite
    return node.target in _FINITE and all(is_size(n) or surely_finite(gm, n) for n in input_nodes(node))


_FINITE = LAYOUT | {aten.add.Tensor, aten.cat.default, aten.slice.Tensor, aten.select.int, aten.repeat.default}


def adjoint_convolution(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    """A transposed convolution of stride 1 is a convolution with the flipped, transposed weight."""
    ct, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args
    if not transposed or any(s != 1 for s in stride) or any(output_padding) or bias is not None:
        return NotImplemented
    kernel = list(weight.shape[2:])
    sides = [d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    if any(side < 0 for side in sides):
        return NotImplemented
    adjoint = transposed_weight(weight, groups)
    none = [0] * len(stride)
    return builder.call(aten.convolution.default, (ct, adjoint, None, stride, sides, dilation, False, none, groups), {})


def transposed_weight(weight: Value, groups: int) -> Any:
    """`[out, in / groups, *kernel]` -> `[in, out / groups, *kernel]`, the kernel flipped."""
    out, into, *kernel = weight.shape
    spatial = list(range(2, 2 + len(kernel)))
    if groups == 1:
        turned: Any = weight.transpose(0, 1)
    elif out == groups and into == 1:
        turned = weight
    else:
        turned = weight.reshape([groups, out // groups, into, *kernel]).transpose(1, 2)
        turned = turned.reshape([groups * into, out // groups, *kernel])
    return torch.flip(turned, spatial) if any(k > 1 for k in kernel) else turned


def merge_equal(gm: fx.GraphModule) -> fx.GraphModule:
    """Compute equal expressions once."""
    seen: dict[Any, Any] = {}

    def visit(builder: Builder, node: fx.Node, env: dict[fx.Node, Any]) -> Any:
        if is_size(node) or node.op == "get_attr" or node.target is GETITEM:
            return builder.copy(node, env)
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: env[n])
        key = (node.target, _key(args), _key(kwargs))
        if key not in seen:
            seen[key] = builder.copy(node, env)
        return seen[key]

    return walk(gm, visit)


def _key(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return (type(value).__name__, *map(_key, value))
    if isinstance(value, dict):
        return tuple(sorted((k, _key(v)) for k, v in value.items()))
    if isinstance(value, Value):
        return value.node
    if isinstance(value, torch.SymInt):
        return value.node.expr
    return (type(value).__name__, value)


def drop_no_ops(gm: fx.GraphModule) -> fx.GraphModule:
    """Reshapes and expansions to the shape a value has, slices of a whole axis, factors of one, double transposes."""

    def visit(builder: Builder, node: fx.Node, env: dict[fx.Node, Any]) -> Any:
        if node.op != "call_function" or is_size(node) or node.target is GETITEM:
            return builder.copy(node, env)
        source = node.args[0] if node.args else None
        idle = node.target in _SAME_SHAPE or (node.target in _SCALING and arg(node, 1) == 1)
        if idle and isinstance(source, fx.Node) and _same_shape(node, source):
            return env[source]
        if node.target is aten.reshape.default and isinstance(source, fx.Node):
            inner = env[source].node
            if inner.target is aten.reshape.default:
                return builder.copy(node, ChainMap({source: Value(builder, inner.args[0])}, env))
        if node.target is aten.transpose.int:
            inner = env[arg(node, 0)].node
            if inner.target is aten.transpose.int and _axes(node) == _axes(inner):
                return Value(builder, inner.args[0])
        return builder.copy(node, env)

    return walk(gm, visit)


def _axes(node: fx.Node) -> set[int]:
    ndim = node.meta["val"].ndim
    return {int(arg(node, 1)) % ndim, int(arg(node, 2)) % ndim}


_SCALING = {aten.mul.Tensor, aten.div.Tensor}
_SAME_SHAPE = {aten.reshape.default, aten.expand.default, aten.slice.Tensor, aten.view.default}


def _same_shape(node: fx.Node, source: fx.Node) -> bool:
    mine, theirs = node.meta["val"].shape, source.meta["val"].shape
    return len(mine) == len(theirs) and all(_equal(a, b) for a, b in zip(mine, theirs, strict=True))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.SymInt) or isinstance(b, torch.SymInt):
        return isinstance(a, torch.SymInt) and isinstance(b, torch.SymInt) and bool(a.node.expr == b.node.expr)
    return bool(a == b)
