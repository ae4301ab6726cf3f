"""How a call is spelled that is not canonical: a function for each kind, from its arguments to the canonical call.

A function gets the recorder and all arguments of the operator's schema, and returns what stands for the call. It is
asked only about calls that `fxpullback.graph.canonical` says are not canonical.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from fxpullback.graph.canonical import NOT_CANONICAL_IF, instead_of
from fxpullback.graph.compounds import COMPOUNDS, joined, of_torchvision
from fxpullback.graph.distances import count
from fxpullback.graph.ir import STOP_GRADIENT, aten, each_axis
from fxpullback.graph.running import cumprod
from fxpullback.graph.scattered import scatter_add
from fxpullback.graph.shapes import same_shape
from fxpullback.graph.value import Recorder, Value, map_tree
from fxpullback.graph.written import select_scatter, slice_scatter

Rewrite = Callable[..., Any]


def respell(recorder: Recorder, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What stands for one call in canonical spelling.

    Args:
        recorder: what appends the nodes.
        target: the operator that is called.
        args: its arguments, Values and plain values.
        kwargs: those that are passed by name.

    Returns:
        A Value, a tuple of Values for several outputs, or NotImplemented where the call stays as it is.
    """
    rewrite = SPELLINGS.get(target) or of_torchvision(target)
    if rewrite is None:
        return NotImplemented
    rest = target._schema.arguments[len(args) :]
    arguments = (*args, *(kwargs.get(argument.name, argument.default_value) for argument in rest))
    if target in NOT_CANONICAL_IF and instead_of(target, map_tree(arguments, _fake)) is None:
        return NotImplemented
    return rewrite(recorder, *arguments)


def _fake(value: Any) -> Any:
    return value.fake if isinstance(value, Value) else value


def same(recorder: Recorder, x: Value, *rest: Any) -> Value:
    """The operator changes nothing."""
    return x


def spell(target: Any, *order: int) -> Rewrite:
    """The same operator under its canonical name, arguments picked from the old schema."""

    def rewrite(recorder: Recorder, *args: Any) -> Any:
        return recorder.call(target, tuple(args[i] for i in order), {})

    return rewrite


def convolution(spatial: int) -> Rewrite:
    """`conv1d` and its kin, their padding in numbers or by name."""

    def rewrite(
        recorder: Recorder, x: Value, weight: Value, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Any:
        if isinstance(padding, str):
            x, padding = _padded(recorder, x, weight, padding, each_axis(dilation, spatial))
        full = [each_axis(v, spatial) for v in (stride, padding, dilation)]
        call = (x, weight, bias, *full, False, [0] * spatial, groups)
        return recorder.call(aten.convolution.default, call, {})

    return rewrite


def _padded(recorder: Recorder, x: Value, weight: Value, padding: str, dilation: list[int]) -> tuple[Any, list[int]]:
    """The input and what is left to pad of "same" and "valid"; an odd total is padded beforehand."""
    total = [0] * len(dilation)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if any(t % 2 for t in total):
        sides = [side for t in reversed(total) for side in (t // 2, t - t // 2)]
        return recorder.call(aten.constant_pad_nd.default, (x, sides, 0.0), {}), [0] * len(total)
    return x, [t // 2 for t in total]


def transposed(spatial: int) -> Rewrite:
    """`conv_transpose1d` and its kin."""

    def rewrite(
        recorder: Recorder, x: Value, weight: Value, bias: Any, stride: Any, padding: Any, output_padding: Any,
        groups: int, dilation: Any,
    ) -> Any:  # fmt: skip
        stride, padding, output_padding, dilation = (
            each_axis(v, spatial) for v in (stride, padding, output_padding, dilation)
        )
        call = (x, weight, bias, stride, padding, dilation, True, output_padding, groups)
        return recorder.call(aten.convolution.default, call, {})

    return rewrite


def clamp(recorder: Recorder, x: Value, low: Any, high: Any) -> Any:
    """Both bounds, or zero below."""
    if high is None:
        return recorder.call(aten.relu.default, (x,), {})
    return recorder.call(aten.hardtanh.default, (x, low, high), {})


def above(target: Any) -> Rewrite:
    """Bounded above alone."""

    def rewrite(recorder: Recorder, x: Value, high: Any) -> Any:
        return recorder.call(target, (x, None, high), {})

    return rewrite


def relu6(recorder: Recorder, x: Value) -> Any:
    """ReLU with a ceiling of 6."""
    return recorder.call(aten.hardtanh.default, (x, 0.0, 6.0), {})


def rrelu(recorder: Recorder, x: Value, lower: float, upper: float, *rest: Any) -> Any:
    """The mean of the slopes that training draws."""
    return recorder.call(aten.leaky_relu.default, (x, (lower + upper) / 2), {})


def softmax(target: Any) -> Rewrite:
    """The operator below autograd, with a flag where the canonical one has the type of the result."""

    def rewrite(recorder: Recorder, x: Value, dim: int, half_to_float: bool) -> Any:
        return recorder.call(target, (x, dim, torch.float32) if half_to_float else (x, dim), {})

    return rewrite


def native_dropout(recorder: Recorder, x: Value, *rest: Any) -> Any:
    """The tensor, and the mask of what was kept: everything."""
    return x, recorder.call(aten.full.default, (list(x.shape), True), {"dtype": torch.bool, "device": x.device})


def batch_norm(
    recorder: Recorder, x: Value, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float,
    eps: float, cudnn: bool,
) -> Any:  # fmt: skip
    """By stored statistics."""
    call = (x, weight, bias, mean, var, momentum, eps)
    return recorder.call(aten._native_batch_norm_legit_no_training.default, call, {})[0]


def layer_norm(recorder: Recorder, *args: Any) -> Any:
    """Without the flag for cuDNN; the canonical one also gives its statistics."""
    return recorder.call(aten.native_layer_norm.default, args[:5], {})[0]


def scaled(target: Any) -> Rewrite:
    """A sum with a number, which may be multiplied by another one first."""

    def rewrite(recorder: Recorder, x: Value, number: Any, alpha: Any) -> Any:
        return recorder.call(target, (x, number), {} if alpha == 1 else {"alpha": alpha})

    return rewrite


def glu(recorder: Recorder, x: Value, dim: int) -> Any:
    """One half times the logistic function of the other."""
    value, gate = recorder.call(aten.split.Tensor, (x, x.shape[dim] // 2, dim), {})
    return value * torch.sigmoid(gate)


def instance_norm(
    recorder: Recorder, x: Value, weight: Any, bias: Any, mean: Any, var: Any, of_input: bool, momentum: float,
    eps: float, cudnn: bool,
) -> Any:  # fmt: skip
    """Group norm with one channel a group; with stored statistics it is batch norm."""
    if of_input:
        return recorder.call(aten.group_norm.default, (x, x.shape[1], weight, bias, eps), {})
    call = (x, weight, bias, mean, var, False, momentum, eps, cudnn)
    return recorder.call(aten.batch_norm.default, call, {})


def unbiased(target: Any) -> Rewrite:
    """The older spelling of a variance, with a flag where the canonical one has the degrees of freedom taken."""

    def rewrite(recorder: Recorder, x: Value, dim: Any, unbiased: bool, keepdim: bool) -> Any:
        return recorder.call(target, (x, dim), {"correction": int(unbiased), "keepdim": keepdim})

    return rewrite


def pad(recorder: Recorder, x: Value, sides: Any, mode: str, value: Any) -> Any:
    """By a constant, zero if none is given."""
    return recorder.call(aten.constant_pad_nd.default, (x, sides, 0.0 if value is None else value), {})


def pool(target: Any) -> Rewrite:
    """Without a batch of its own, as `F.max_pool1d` takes `[batch, time]`, a pooling gets an axis of one channel."""

    def rewrite(recorder: Recorder, x: Value, *rest: Any) -> Any:
        made = recorder.call(target, (x.unsqueeze(1), *rest), {})
        return tuple(part.squeeze(1) for part in made) if isinstance(made, tuple) else made.squeeze(1)

    return rewrite


def permute(recorder: Recorder, x: Value, dims: list[int]) -> Any:
    """With axes counted from the front."""
    return recorder.call(aten.permute.default, (x, [dim % x.ndim for dim in dims]), {})


def t(recorder: Recorder, x: Value) -> Any:
    """A matrix transposed; a vector and a number stay what they are."""
    return recorder.call(aten.transpose.int, (x, 0, 1), {}) if x.ndim == 2 else x


def cast(recorder: Recorder, x: Value, dtype: torch.dtype, *rest: Any) -> Any:
    """To a type, or not at all."""
    return x if x.dtype == dtype else recorder.call(aten._to_copy.default, (x,), {"dtype": dtype})


def type_as(recorder: Recorder, x: Value, other: Value) -> Any:
    """To the type of another tensor."""
    return cast(recorder, x, other.dtype)


def copy(recorder: Recorder, x: Value, source: Value, *rest: Any) -> Any:
    """What assignment in place leaves behind: the source, in the shape and type of what it was written over."""
    source = cast(recorder, source, x.dtype)
    if same_shape(x.shape, source.shape):
        return source
    return recorder.call(aten.expand.default, (source, list(x.shape)), {})


def filled(recorder: Recorder, x: Value, sizes: Any, number: Any, dtype: Any = None, *rest: Any) -> Any:
    """A tensor of one number, which takes nothing but type and device of the tensor it is made from."""
    device = next((option for option in rest if isinstance(option, torch.device)), None)
    options = {"dtype": dtype or x.dtype, "device": device or x.device}
    return recorder.call(aten.full.default, (list(sizes), number), options)


def _of(number: int) -> Rewrite:
    def rewrite(recorder: Recorder, x: Value, sizes: Any, dtype: Any, *rest: Any) -> Any:
        return filled(recorder, x, sizes, number, dtype, *rest)

    return rewrite


def fill(recorder: Recorder, x: Value, number: Any) -> Any:
    """One number in place of every value."""
    return filled(recorder, x, x.shape, number)


ALWAYS: dict[Any, Rewrite] = {
    **COMPOUNDS,
    aten.conv1d.default: convolution(1),
    aten.conv2d.default: convolution(2),
    aten.conv3d.default: convolution(3),
    aten.conv1d.padding: convolution(1),
    aten.conv2d.padding: convolution(2),
    aten.conv3d.padding: convolution(3),
    aten.conv_transpose1d.default: transposed(1),
    aten.conv_transpose2d.input: transposed(2),
    aten.conv_transpose3d.input: transposed(3),
    aten.glu.default: glu,
    aten.instance_norm.default: instance_norm,
    aten.layer_norm.default: layer_norm,
    aten.relu6.default: relu6,
    aten.new_zeros.default: _of(0),
    aten.new_ones.default: _of(1),
    aten.new_full.default: filled,
    aten.fill.Scalar: fill,
    aten.type_as.default: type_as,
    aten.to.dtype: cast,
    aten.copy.default: copy,
    aten.clone.default: same,
    aten.contiguous.default: same,
    aten.alias.default: same,
    aten.lift_fresh_copy.default: same,
    aten.detach.default: spell(STOP_GRADIENT, 0),
    aten.max.other: spell(aten.maximum.default, 0, 1),
    aten.min.other: spell(aten.minimum.default, 0, 1),
    aten.var.dim: unbiased(aten.var.correction),
    aten.std.dim: unbiased(aten.std.correction),
    aten.var_mean.dim: unbiased(aten.var_mean.correction),
    aten.clamp_min.default: spell(aten.clamp.default, 0, 1),
    aten.clamp_max.default: above(aten.clamp.default),
    aten.clamp_min.Tensor: spell(aten.clamp.Tensor, 0, 1),
    aten.clamp_max.Tensor: above(aten.clamp.Tensor),
    aten.add.Scalar: scaled(aten.add.Tensor),
    aten.sub.Scalar: scaled(aten.sub.Tensor),
    aten.mul.Scalar: spell(aten.mul.Tensor, 0, 1),
    aten.div.Scalar: spell(aten.div.Tensor, 0, 1),
    aten.t.default: t,
    aten.select_scatter.default: select_scatter,
    aten.view.default: spell(aten.reshape.default, 0, 1),
    aten._unsafe_view.default: spell(aten.reshape.default, 0, 1),
    aten.mm.default: spell(aten.matmul.default, 0, 1),
    aten.bmm.default: spell(aten.matmul.default, 0, 1),
    aten.mv.default: spell(aten.matmul.default, 0, 1),
    aten.dot.default: spell(aten.matmul.default, 0, 1),
    aten.unsafe_split.Tensor: spell(aten.split.Tensor, 0, 1, 2),
    aten.unsafe_split_with_sizes.default: spell(aten.split_with_sizes.default, 0, 1, 2),
    aten._softmax.default: softmax(aten.softmax.int),
    aten._log_softmax.default: softmax(aten.log_softmax.int),
    aten.special_softmax.default: spell(aten.softmax.int, 0, 1, 2),
    aten.special_log_softmax.default: spell(aten.log_softmax.int, 0, 1, 2),
    aten.special_erf.default: spell(aten.erf.default, 0),
    aten.special_expit.default: spell(aten.sigmoid.default, 0),
}
"""Every operator of `fxpullback.graph.canonical.NOT_CANONICAL` but those that compute nothing."""

SOME_CALLS: dict[Any, Rewrite] = {
    **{
        op: pool(op)
        for kind in ("max", "avg", "adaptive_max", "adaptive_avg")
        for op in (getattr(aten, f"{kind}_pool{n}d").default for n in (1, 2, 3))
    },
    aten.clamp.default: clamp,
    aten.threshold.default: spell(aten.relu.default, 0),
    aten.slice_scatter.default: slice_scatter,
    aten.dropout.default: same,
    aten.feature_dropout.default: same,
    aten.alpha_dropout.default: same,
    aten.feature_alpha_dropout.default: same,
    aten.native_dropout.default: native_dropout,
    aten.batch_norm.default: batch_norm,
    aten.rrelu.default: rrelu,
    aten.pad.default: pad,
    aten.cat.default: joined,
    aten._to_copy.default: same,
    aten.permute.default: permute,
    aten.cumprod.default: cumprod,
    aten.sgn.default: spell(aten.sign.default, 0),
    aten.scatter_add.default: scatter_add,
    aten.topk.default: spell(aten.topk.default, 0, 1, 2, 3),
    aten.linalg_vector_norm.default: count,
    **dict.fromkeys((aten.div.Tensor_mode, aten.div.Scalar_mode), spell(aten.div.Tensor, 0, 1)),
}
"""Operators of `fxpullback.graph.canonical.NOT_CANONICAL_IF`; `fxpullback.capture.recurrent` has the others."""

SPELLINGS: dict[Any, Rewrite] = {**ALWAYS, **SOME_CALLS}
