"""One spelling per operator: `nn.ReLU`, `F.relu`, `x.relu_()` and `x.clamp(min=0)` are one target afterwards.

Only spellings that compute the same bits are merged: the captured graph gives the model's own logits, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from fxpullback.capture import recurrent, spellings
from fxpullback.graph.compilation import Compilation
from fxpullback.graph.ir import ORIGIN, aten, is_size
from fxpullback.graph.module import Graph
from fxpullback.graph.rebuild import Site, rebuild


def decompositions() -> dict[Any, Callable[..., Any]]:
    """What `run_decompositions` takes apart: composites that are sums of operators the IR has."""
    composites = (
        aten.einsum.default,
        aten.glu.default,
        aten.tensor_split.sections,
        aten.chunk.default,
        aten.narrow.default,
        aten.instance_norm.default,
        aten.lstm_cell.default,
        aten.gru_cell.default,
        aten.rnn_tanh_cell.default,
        aten.rnn_relu_cell.default,
        aten.cosine_similarity.default,
        aten.bilinear.default,
    )
    table: dict[Any, Callable[..., Any]] = {}
    for op in composites:
        if op._can_decompose() and op is not aten.glu.default:
            # Not `op.decompose`: it looks in the table that it stands in.
            table[op] = partial(op._op_dk, torch._C.DispatchKey.CompositeImplicitAutograd)
    table[aten.glu.default] = _glu
    table[aten.instance_norm.default] = _instance_norm
    return table


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    a, b = torch.split(x, x.shape[dim] // 2, dim)
    return a * torch.sigmoid(b)


def _instance_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn: bool,
) -> Tensor:
    """Instance norm is group norm with one channel a group; with stored statistics it is batch norm."""
    if use_input_stats:
        return torch.nn.functional.group_norm(x, x.shape[1], weight, bias, eps)
    return torch.nn.functional.batch_norm(x, mean, var, weight, bias, False, momentum, eps)


def canonicalise(gm: fx.GraphModule, compilation: Compilation | None = None) -> Graph:
    """Return the graph in canonical spelling, its dead and size-only nodes gone."""
    result = rebuild(gm, _respell, compilation)
    for node in result.graph.nodes:
        node.meta.pop(ORIGIN, None)  # from here on the origin of a node is its name in this graph
    return result


def _respell(site: Site) -> Any:
    if site.node.target in _DROPPED:
        return None
    rewrite = _SPELLINGS.get(site.node.target)
    if rewrite is None or is_size(site.node):
        return NotImplemented
    return rewrite(site.builder, site.node, site.arguments())


_DROPPED = {
    aten._assert_tensor_metadata.default,
    aten._assert_async.msg,
    aten._assert_scalar.default,
    aten.sym_constrain_range.default,
    aten.sym_constrain_range_for_size.default,
}

_POOLS: dict[Any, spellings.Rewrite] = {
    getattr(aten, f"{kind}_pool{n}d").default: spellings.pool(n)
    for kind in ("max", "avg", "adaptive_max", "adaptive_avg")
    for n in (1, 2, 3)
}

_SPELLINGS: dict[Any, spellings.Rewrite] = {
    torch.ops.fxpullback.lstm.default: recurrent.lstm,
    torch.ops.fxpullback.gru.default: recurrent.gru(),
    torch.ops.fxpullback.rnn_tanh.default: recurrent.rnn(torch.tanh),
    torch.ops.fxpullback.rnn_relu.default: recurrent.rnn(torch.relu),
    aten.lstm.input: recurrent.lstm,
    aten.gru.input: recurrent.gru(),
    aten.rnn_tanh.input: recurrent.rnn(torch.tanh),
    aten.rnn_relu.input: recurrent.rnn(torch.relu),
    **_POOLS,
    aten.conv1d.default: spellings.convolution(1),
    aten.conv2d.default: spellings.convolution(2),
    aten.conv3d.default: spellings.convolution(3),
    aten.conv1d.padding: spellings.convolution(1),
    aten.conv2d.padding: spellings.convolution(2),
    aten.conv3d.padding: spellings.convolution(3),
    aten.conv_transpose1d.default: spellings.transposed(1),
    aten.conv_transpose2d.input: spellings.transposed(2),
    aten.conv_transpose3d.input: spellings.transposed(3),
    aten.clamp.default: spellings.clamp,
    aten.clamp_min.default: spellings.clamp_min,
    aten.clamp.Tensor: spellings.clamp_by_constants,
    aten.slice_scatter.default: spellings.slice_scatter,
    aten.index.Tensor: spellings.index,
    aten.relu6.default: lambda b, n, a: b.call(aten.hardtanh.default, (a[0], 0.0, 6.0), {}),
    aten.threshold.default: spellings.threshold,
    aten.dropout.default: spellings.dropout,
    aten.feature_dropout.default: spellings.dropout,
    aten.alpha_dropout.default: spellings.dropout,
    aten.native_dropout.default: spellings.dropout,
    aten.batch_norm.default: spellings.batch_norm,
    aten.layer_norm.default: spellings.layer_norm,
    aten.new_zeros.default: spellings.filled(lambda args: 0),
    aten.new_ones.default: spellings.filled(lambda args: 1),
    aten.new_full.default: spellings.filled(lambda args: args[2]),
    aten.fill.Scalar: spellings.filled(lambda args: args[1]),
    aten.pad.default: spellings.pad,
    aten.constant_pad_nd.default: spellings.pad_for_maximum,
    aten.type_as.default: spellings.type_as,
    aten.copy.default: spellings.copy,
    aten.clone.default: spellings.clone,
    aten.contiguous.default: spellings.clone,
    aten.alias.default: spellings.same,
    aten.lift_fresh_copy.default: spellings.same,
    aten.detach.default: spellings.detach,
    aten._to_copy.default: spellings.cast,
    aten.to.dtype: spellings.cast,
    aten.max_pool2d_with_indices.default: spellings.max_pool_with_indices,
    aten.max.other: spellings.spell(aten.maximum.default, 0, 1),
    aten.min.other: spellings.spell(aten.minimum.default, 0, 1),
    aten.var.dim: spellings.unbiased(aten.var.correction),
    aten.std.dim: spellings.unbiased(aten.std.correction),
    aten.var_mean.dim: spellings.unbiased(aten.var_mean.correction),
    aten.rrelu.default: spellings.rrelu,
    aten._unsafe_view.default: spellings.spell(aten.reshape.default, 0, 1),
    aten.view.default: spellings.spell(aten.reshape.default, 0, 1),
    aten.mm.default: spellings.spell(aten.matmul.default, 0, 1),
    aten.unsafe_split.Tensor: spellings.spell(aten.split.Tensor, 0, 1, 2),
    aten.unsafe_split_with_sizes.default: spellings.spell(aten.split_with_sizes.default, 0, 1, 2),
    aten.bmm.default: spellings.spell(aten.matmul.default, 0, 1),
    aten.permute.default: lambda b, n, a: b.call(aten.permute.default, (a[0], [d % a[0].ndim for d in a[1]]), {}),
    aten._softmax.default: spellings.spell(aten.softmax.int, 0, 1),
    aten.special_softmax.default: spellings.spell(aten.softmax.int, 0, 1, 2),
    aten.special_log_softmax.default: spellings.spell(aten.log_softmax.int, 0, 1, 2),
    aten.special_erf.default: spellings.spell(aten.erf.default, 0),
    aten.special_expit.default: spellings.spell(aten.sigmoid.default, 0),
}
