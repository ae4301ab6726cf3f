"""One spelling per operator: `nn.ReLU`, `F.relu`, `x.relu_()` and `x.clamp(min=0)` are one target afterwards.

Only spellings that compute the same bits are merged: the captured graph gives the model's own logits, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from fxpullback.capture import recurrent
from fxpullback.graph.builder import Builder, Value
from fxpullback.graph.ir import GETITEM, ORIGIN, aten, attribute, each_axis, is_call, is_size, schema_arguments
from fxpullback.graph.rebuild import walk

Rewrite = Callable[[Builder, fx.Node, tuple[Any, ...]], Any]


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


def canonicalise(gm: fx.GraphModule) -> fx.GraphModule:
    """Return the graph in canonical spelling, its dead and size-only nodes gone."""
    result = walk(gm, _respell)
    for node in result.graph.nodes:
        node.meta.pop(ORIGIN, None)  # from here on the origin of a node is its name in this graph
    return result


def _respell(builder: Builder, node: fx.Node, env: dict[fx.Node, Any]) -> Any:
    if node.target in _DROPPED:
        return None
    rewrite = _SPELLINGS.get(node.target)
    if rewrite is None or is_size(node):
        return builder.copy(node, env)
    arguments = fx.map_arg(schema_arguments(node), lambda n: env[n])
    kept = {k: v for k, v in node.meta.items() if k != "val"}
    with builder.provenance(node.name, **kept):
        made = rewrite(builder, node, tuple(arguments))
    return builder.copy(node, env) if made is NotImplemented else made


def _same(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    return args[0]


def _spell(target: Any, *order: int) -> Rewrite:
    """The same operator under its canonical name, arguments picked from the old schema."""

    def rewrite(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
        return builder.call(target, tuple(args[i] for i in order), {})

    return rewrite


def _convolution(spatial: int) -> Rewrite:
    def rewrite(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
        x, weight, bias, stride, padding, dilation, groups = args
        if isinstance(padding, str):
            return _string_padding(builder, x, weight, bias, stride, padding, dilation, groups, spatial)
        full = [each_axis(v, spatial) for v in (stride, padding, dilation)]
        call = (x, weight, bias, *full, False, [0] * spatial, groups)
        return builder.call(aten.convolution.default, call, {})

    return rewrite


def _string_padding(
    builder: Builder, x: Value, weight: Value, bias: Any, stride: Any, padding: str, dilation: Any, groups: int, n: int
) -> Any:
    stride, dilation = each_axis(stride, n), each_axis(dilation, n)
    total = [0] * n if padding == "valid" else [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if any(t % 2 for t in total):
        sides = [side for t in reversed(total) for side in (t // 2, t - t // 2)]
        x, total = builder.call(aten.constant_pad_nd.default, (x, sides, 0.0), {}), [0] * n
    call = (x, weight, bias, stride, [t // 2 for t in total], dilation, False, [0] * n, groups)
    return builder.call(aten.convolution.default, call, {})


def _transposed(spatial: int) -> Rewrite:
    def rewrite(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
        x, weight, bias, stride, padding, output_padding, groups, dilation = args
        stride, padding, output_padding, dilation = (
            each_axis(v, spatial) for v in (stride, padding, output_padding, dilation)
        )
        call = (x, weight, bias, stride, padding, dilation, True, output_padding, groups)
        return builder.call(aten.convolution.default, call, {})

    return rewrite


def _clamp(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    x, low, high = args
    if not x.dtype.is_floating_point:
        return NotImplemented
    if low == 0 and high is None:
        return builder.call(aten.relu.default, (x,), {})
    if low is not None and high is not None:
        return builder.call(aten.hardtanh.default, (x, low, high), {})
    return NotImplemented


def _clamp_min(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    floats = args[0].dtype.is_floating_point
    return builder.call(aten.relu.default, args[:1], {}) if floats and args[1] == 0 else NotImplemented


def _clamp_by_constants(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    """Bounds that are constants of one number each, as numbers; an infinite one bounds nothing."""
    low, high = (_number(builder, bound) for bound in (node.args + (None,) * 3)[1:3])
    if low is NotImplemented or high is NotImplemented or not args[0].dtype.is_floating_point:
        return NotImplemented
    low, high = (None if low == -math.inf else low), (None if high == math.inf else high)
    if low is None and high is None:
        return args[0]
    if low is not None and high is not None:
        return builder.call(aten.hardtanh.default, (args[0], low, high), {})
    if high is not None:
        return builder.call(aten.clamp_max.default, (args[0], high), {})
    if low == 0:
        return builder.call(aten.relu.default, (args[0],), {})
    return builder.call(aten.clamp_min.default, (args[0], low), {})


def _number(builder: Builder, bound: Any) -> Any:
    """The value of a constant of one number, None for none, NotImplemented for any other node."""
    if bound is None:
        return None
    if not isinstance(bound, fx.Node) or bound.op != "get_attr":
        return NotImplemented
    held = attribute(builder.source, str(bound.target))
    return float(held) if held.numel() == 1 else NotImplemented


def _threshold(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    return builder.call(aten.relu.default, args[:1], {}) if args[1] == 0 and args[2] == 0 else NotImplemented


def _dropout(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    return args[0] if args[2] is False or args[1] == 0 else NotImplemented


def _batch_norm(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    x, weight, bias, mean, var, training, momentum, eps, _ = args
    if training:
        return NotImplemented
    call = (x, weight, bias, mean, var, momentum, eps)
    return builder.call(aten._native_batch_norm_legit_no_training.default, call, {})[0]


def _layer_norm(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    return builder.call(aten.native_layer_norm.default, args[:5], {})[0]


def _pad(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    x, sides, mode, value = args
    if mode == "constant":
        call = (x, sides, 0.0 if value is None else value)
        made = _pad_for_maximum(builder, node, call)
        return builder.call(aten.constant_pad_nd.default, call, {}) if made is NotImplemented else made
    return NotImplemented


def _clone(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    return args[0]


def _unbiased(target: Any) -> Rewrite:
    """The older spelling of a variance, with a flag where the canonical one has the degrees of freedom taken."""

    def rewrite(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
        x, dim, unbiased, keepdim = args
        return builder.call(target, (x, dim), {"correction": int(unbiased), "keepdim": keepdim})

    return rewrite


def _rrelu(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    x, lower, upper, training, *_ = args
    return NotImplemented if training else builder.call(aten.leaky_relu.default, (x, (lower + upper) / 2), {})


def _max_pool_with_indices(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    if any(not is_call(user, GETITEM) or user.args[1] != 0 for user in node.users):
        return NotImplemented
    return (builder.call(aten.max_pool2d.default, args, {}),)


def _pool(spatial: int) -> Rewrite:
    """Without a batch of its own, as `F.max_pool1d` takes `[batch, time]`, a pooling gets an axis of one channel."""

    def rewrite(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
        x, *rest = args
        if x.ndim != spatial + 1:
            return NotImplemented
        made = builder.call(node.target, (x.unsqueeze(1), *rest), {})
        return tuple(part.squeeze(1) for part in made) if isinstance(made, tuple) else made.squeeze(1)

    return rewrite


def _detach(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    """A detach of the model's own: what is behind it was held constant by its author."""
    return builder.call(torch.ops.fxpullback.stop_gradient.default, args[:1], {})


def _cast(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    return args[0] if args[0].dtype == node.meta["val"].dtype else NotImplemented


def _type_as(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    x, other = args
    return x if x.dtype == other.dtype else builder.call(aten._to_copy.default, (x,), {"dtype": other.dtype})


def _copy(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    """What assignment in place leaves behind: the source, in the shape and type of what it was written over."""
    x, source, _ = args
    if source.dtype != x.dtype:
        source = builder.call(aten._to_copy.default, (source,), {"dtype": x.dtype})
    if [str(n) for n in x.shape] == [str(n) for n in source.shape]:
        return source
    return builder.call(aten.expand.default, (source, list(x.shape)), {})


def _filled(number: Callable[[tuple[Any, ...]], Any]) -> Rewrite:
    """A tensor of one number, which takes nothing but type and device of the tensor it is made from."""

    def rewrite(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
        made = node.meta["val"]
        options = {"dtype": made.dtype, "device": made.device}
        return builder.call(aten.full.default, (list(made.shape), number(args)), options)

    return rewrite


_MAX_POOLS = {
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.max_pool2d_with_indices.default,
}


def _pad_for_maximum(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    """Padding with -inf in front of a max-pool, as "same" padding has it, pads with the smallest finite number.

    The maximum is the same; and a soft maximum may multiply what it left out by zero.
    """
    x, sides, value = args
    if value != -math.inf or not node.users or any(user.target not in _MAX_POOLS for user in node.users):
        return NotImplemented
    return builder.call(aten.constant_pad_nd.default, (x, sides, torch.finfo(x.dtype).min), {})


def _slice_scatter(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    """Writing over a whole axis, as in-place assignment to a slice leaves it behind, is what was written."""
    x, source = args[:2]
    return source if [str(n) for n in x.shape] == [str(n) for n in source.shape] else NotImplemented


def _index(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    """`x[arange(batch), place]`, one place for each sample, is a gather; as an index its adjoint would mix samples."""
    x, indices = args
    if len(indices) != 2 or not all(isinstance(i, Value) and i.ndim == 1 for i in indices):
        return NotImplemented
    samples, place = indices
    whole = is_call(samples.node, aten.arange.default) and str(samples.shape[0]) == str(x.shape[0])
    if not whole or place.dtype == torch.bool or str(place.shape[0]) != str(x.shape[0]):
        return NotImplemented
    place = (
        place if place.dtype == torch.int64 else builder.call(aten._to_copy.default, (place,), {"dtype": torch.int64})
    )
    place = torch.where(place < 0, place + x.shape[1], place)
    spread = place.reshape([-1] + [1] * (x.ndim - 1)).expand([-1, 1, *x.shape[2:]])
    return x.gather(1, spread).squeeze(1)


_DROPPED = {
    aten._assert_tensor_metadata.default,
    aten._assert_async.msg,
    aten._assert_scalar.default,
    aten.sym_constrain_range.default,
    aten.sym_constrain_range_for_size.default,
}

_POOLS: dict[Any, Rewrite] = {
    getattr(aten, f"{kind}_pool{n}d").default: _pool(n)
    for kind in ("max", "avg", "adaptive_max", "adaptive_avg")
    for n in (1, 2, 3)
}

_SPELLINGS: dict[Any, Rewrite] = {
    torch.ops.fxpullback.lstm.default: recurrent.lstm,
    torch.ops.fxpullback.gru.default: recurrent.gru(),
    torch.ops.fxpullback.rnn_tanh.default: recurrent.rnn(torch.tanh),
    torch.ops.fxpullback.rnn_relu.default: recurrent.rnn(torch.relu),
    aten.lstm.input: recurrent.lstm,
    aten.gru.input: recurrent.gru(),
    aten.rnn_tanh.input: recurrent.rnn(torch.tanh),
    aten.rnn_relu.input: recurrent.rnn(torch.relu),
    **_POOLS,
    aten.conv1d.default: _convolution(1),
    aten.conv2d.default: _convolution(2),
    aten.conv3d.default: _convolution(3),
    aten.conv1d.padding: _convolution(1),
    aten.conv2d.padding: _convolution(2),
    aten.conv3d.padding: _convolution(3),
    aten.conv_transpose1d.default: _transposed(1),
    aten.conv_transpose2d.input: _transposed(2),
    aten.conv_transpose3d.input: _transposed(3),
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp_min,
    aten.clamp.Tensor: _clamp_by_constants,
    aten.slice_scatter.default: _slice_scatter,
    aten.index.Tensor: _index,
    aten.relu6.default: lambda b, n, a: b.call(aten.hardtanh.default, (a[0], 0.0, 6.0), {}),
    aten.threshold.default: _threshold,
    aten.dropout.default: _dropout,
    aten.feature_dropout.default: _dropout,
    aten.alpha_dropout.default: _dropout,
    aten.native_dropout.default: _dropout,
    aten.batch_norm.default: _batch_norm,
    aten.layer_norm.default: _layer_norm,
    aten.new_zeros.default: _filled(lambda args: 0),
    aten.new_ones.default: _filled(lambda args: 1),
    aten.new_full.default: _filled(lambda args: args[2]),
    aten.fill.Scalar: _filled(lambda args: args[1]),
    aten.pad.default: _pad,
    aten.constant_pad_nd.default: _pad_for_maximum,
    aten.type_as.default: _type_as,
    aten.copy.default: _copy,
    aten.clone.default: _clone,
    aten.contiguous.default: _clone,
    aten.alias.default: _same,
    aten.lift_fresh_copy.default: _same,
    aten.detach.default: _detach,
    aten._to_copy.default: _cast,
    aten.to.dtype: _cast,
    aten.max_pool2d_with_indices.default: _max_pool_with_indices,
    aten.max.other: _spell(aten.maximum.default, 0, 1),
    aten.min.other: _spell(aten.minimum.default, 0, 1),
    aten.var.dim: _unbiased(aten.var.correction),
    aten.std.dim: _unbiased(aten.std.correction),
    aten.var_mean.dim: _unbiased(aten.var_mean.correction),
    aten.rrelu.default: _rrelu,
    aten._unsafe_view.default: _spell(aten.reshape.default, 0, 1),
    aten.view.default: _spell(aten.reshape.default, 0, 1),
    aten.mm.default: _spell(aten.matmul.default, 0, 1),
    aten.unsafe_split.Tensor: _spell(aten.split.Tensor, 0, 1, 2),
    aten.unsafe_split_with_sizes.default: _spell(aten.split_with_sizes.default, 0, 1, 2),
    aten.bmm.default: _spell(aten.matmul.default, 0, 1),
    aten.permute.default: lambda b, n, a: b.call(aten.permute.default, (a[0], [d % a[0].ndim for d in a[1]]), {}),
    aten._softmax.default: _spell(aten.softmax.int, 0, 1),
    aten.special_softmax.default: _spell(aten.softmax.int, 0, 1, 2),
    aten.special_log_softmax.default: _spell(aten.log_softmax.int, 0, 1, 2),
    aten.special_erf.default: _spell(aten.erf.default, 0),
    aten.special_expit.default: _spell(aten.sigmoid.default, 0),
}
