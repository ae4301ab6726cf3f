"""How one spelling becomes another: a function for each kind, from an operator's arguments to the canonical call.

A function gets the builder, the node and its arguments in schema order; it returns what stands for the node, or
NotImplemented where the operator has to stay as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from fxpullback.graph.builder import Builder
from fxpullback.graph.ir import GETITEM, aten, attribute, each_axis, is_call
from fxpullback.graph.value import Value

Rewrite = Callable[[Builder, fx.Node, tuple[Any, ...]], Any]


def same(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    return args[0]


def spell(target: Any, *order: int) -> Rewrite:
    """The same operator under its canonical name, arguments picked from the old schema."""

    def rewrite(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
        return builder.call(target, tuple(args[i] for i in order), {})

    return rewrite


def convolution(spatial: int) -> Rewrite:
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


def transposed(spatial: int) -> Rewrite:
    def rewrite(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
        x, weight, bias, stride, padding, output_padding, groups, dilation = args
        stride, padding, output_padding, dilation = (
            each_axis(v, spatial) for v in (stride, padding, output_padding, dilation)
        )
        call = (x, weight, bias, stride, padding, dilation, True, output_padding, groups)
        return builder.call(aten.convolution.default, call, {})

    return rewrite


def clamp(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    x, low, high = args
    if not x.dtype.is_floating_point:
        return NotImplemented
    if low == 0 and high is None:
        return builder.call(aten.relu.default, (x,), {})
    if low is not None and high is not None:
        return builder.call(aten.hardtanh.default, (x, low, high), {})
    return NotImplemented


def clamp_min(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    floats = args[0].dtype.is_floating_point
    return builder.call(aten.relu.default, args[:1], {}) if floats and args[1] == 0 else NotImplemented


def clamp_by_constants(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
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


def threshold(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    return builder.call(aten.relu.default, args[:1], {}) if args[1] == 0 and args[2] == 0 else NotImplemented


def dropout(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    return args[0] if args[2] is False or args[1] == 0 else NotImplemented


def batch_norm(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    x, weight, bias, mean, var, training, momentum, eps, _ = args
    if training:
        return NotImplemented
    call = (x, weight, bias, mean, var, momentum, eps)
    return builder.call(aten._native_batch_norm_legit_no_training.default, call, {})[0]


def layer_norm(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    return builder.call(aten.native_layer_norm.default, args[:5], {})[0]


def pad(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    x, sides, mode, value = args
    if mode == "constant":
        call = (x, sides, 0.0 if value is None else value)
        made = pad_for_maximum(builder, node, call)
        return builder.call(aten.constant_pad_nd.default, call, {}) if made is NotImplemented else made
    return NotImplemented


def clone(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    return args[0]


def unbiased(target: Any) -> Rewrite:
    """The older spelling of a variance, with a flag where the canonical one has the degrees of freedom taken."""

    def rewrite(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
        x, dim, unbiased, keepdim = args
        return builder.call(target, (x, dim), {"correction": int(unbiased), "keepdim": keepdim})

    return rewrite


def rrelu(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    x, lower, upper, training, *_ = args
    return NotImplemented if training else builder.call(aten.leaky_relu.default, (x, (lower + upper) / 2), {})


def max_pool_with_indices(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    if any(not is_call(user, GETITEM) or user.args[1] != 0 for user in node.users):
        return NotImplemented
    return (builder.call(aten.max_pool2d.default, args, {}),)


def pool(spatial: int) -> Rewrite:
    """Without a batch of its own, as `F.max_pool1d` takes `[batch, time]`, a pooling gets an axis of one channel."""

    def rewrite(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
        x, *rest = args
        if x.ndim != spatial + 1:
            return NotImplemented
        made = builder.call(node.target, (x.unsqueeze(1), *rest), {})
        return tuple(part.squeeze(1) for part in made) if isinstance(made, tuple) else made.squeeze(1)

    return rewrite


def detach(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    """A detach of the model's own: what is behind it was held constant by its author."""
    return builder.call(torch.ops.fxpullback.stop_gradient.default, args[:1], {})


def cast(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    return args[0] if args[0].dtype == node.meta["val"].dtype else NotImplemented


def type_as(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    x, other = args
    return x if x.dtype == other.dtype else builder.call(aten._to_copy.default, (x,), {"dtype": other.dtype})


def copy(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    """What assignment in place leaves behind: the source, in the shape and type of what it was written over."""
    x, source, _ = args
    if source.dtype != x.dtype:
        source = builder.call(aten._to_copy.default, (source,), {"dtype": x.dtype})
    if [str(n) for n in x.shape] == [str(n) for n in source.shape]:
        return source
    return builder.call(aten.expand.default, (source, list(x.shape)), {})


def filled(number: Callable[[tuple[Any, ...]], Any]) -> Rewrite:
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


def pad_for_maximum(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    """Padding with -inf in front of a max-pool, as "same" padding has it, pads with the smallest finite number.

    The maximum is the same; and a soft maximum may multiply what it left out by zero.
    """
    x, sides, value = args
    if value != -math.inf or not node.users or any(user.target not in _MAX_POOLS for user in node.users):
        return NotImplemented
    return builder.call(aten.constant_pad_nd.default, (x, sides, torch.finfo(x.dtype).min), {})


def slice_scatter(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
    """Writing over a whole axis, as in-place assignment to a slice leaves it behind, is what was written."""
    x, source = args[:2]
    return source if [str(n) for n in x.shape] == [str(n) for n in source.shape] else NotImplemented


def index(builder: Builder, node: fx.Node, args: tuple[Any, ...]) -> Any:
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
