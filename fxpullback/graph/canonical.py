"""One spelling per operator: which operators may not stand in a graph once it is captured, and what stands for them.

torch has several names for one computation. `fxpullback.capture.canonical` respells all of them but one, and
`fxpullback.graph.invariants` holds every later stage to that one. What both go by is listed here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from fxpullback.graph.compounds import COMPOUNDS, is_nothing, of_torchvision
from fxpullback.graph.fake_quantized import FAKE_QUANTIZE, FAKE_QUANTIZE_MASK
from fxpullback.graph.ir import AUTHORED, INJECT, STOP_GRADIENT, aten, operator_name, schema_arguments
from fxpullback.graph.opaque import GRU, LSTM, RNN_RELU, RNN_TANH
from fxpullback.graph.scattered import in_lines
from fxpullback.graph.shapes import is_free, same_shape

_ARGUMENT = "its argument"
_NOTHING = "nothing at all"
_PARTS = "what it is composed of"
_STEPS = "its steps written out"

Condition = Callable[..., Any]

DROPPED = (
    aten._assert_tensor_metadata.default,
    aten._assert_async.msg,
    aten._assert_scalar.default,
    aten.sym_constrain_range.default,
    aten.sym_constrain_range_for_size.default,
)
"""Checks of sizes and values, which compute nothing."""

NOT_CANONICAL: dict[Any, Any] = {
    **dict.fromkeys(COMPOUNDS, _PARTS),
    **dict.fromkeys(DROPPED, _NOTHING),
    aten.alias.default: _ARGUMENT,
    aten.clone.default: _ARGUMENT,
    aten.contiguous.default: _ARGUMENT,
    aten.lift_fresh_copy.default: _ARGUMENT,
    aten.detach.default: STOP_GRADIENT,
    aten.conv1d.default: aten.convolution.default,
    aten.conv2d.default: aten.convolution.default,
    aten.conv3d.default: aten.convolution.default,
    aten.conv1d.padding: aten.convolution.default,
    aten.conv2d.padding: aten.convolution.default,
    aten.conv3d.padding: aten.convolution.default,
    aten.conv_transpose1d.default: aten.convolution.default,
    aten.conv_transpose2d.input: aten.convolution.default,
    aten.conv_transpose3d.input: aten.convolution.default,
    aten.glu.default: _PARTS,
    aten.instance_norm.default: aten.group_norm.default,
    aten.layer_norm.default: aten.native_layer_norm.default,
    aten.relu6.default: aten.hardtanh.default,
    aten.new_zeros.default: aten.full.default,
    aten.new_ones.default: aten.full.default,
    aten.new_full.default: aten.full.default,
    aten.fill.Scalar: aten.full.default,
    aten.type_as.default: aten._to_copy.default,
    aten.to.dtype: aten._to_copy.default,
    aten.copy.default: "what it copies",
    aten.clamp_min.default: aten.clamp.default,
    aten.clamp_max.default: aten.clamp.default,
    aten.clamp_min.Tensor: aten.clamp.Tensor,
    aten.clamp_max.Tensor: aten.clamp.Tensor,
    aten.add.Scalar: aten.add.Tensor,
    aten.sub.Scalar: aten.sub.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.div.Scalar: aten.div.Tensor,
    aten.t.default: aten.transpose.int,
    aten.select_scatter.default: aten.slice_scatter.default,
    aten.view.default: aten.reshape.default,
    aten._unsafe_view.default: aten.reshape.default,
    aten.unsafe_split.Tensor: aten.split.Tensor,
    aten.unsafe_split_with_sizes.default: aten.split_with_sizes.default,
    aten.mm.default: aten.matmul.default,
    aten.bmm.default: aten.matmul.default,
    aten.mv.default: aten.matmul.default,
    aten.dot.default: aten.matmul.default,
    aten.max.other: aten.maximum.default,
    aten.min.other: aten.minimum.default,
    aten.var.dim: aten.var.correction,
    aten.std.dim: aten.std.correction,
    aten.var_mean.dim: aten.var_mean.correction,
    aten._softmax.default: aten.softmax.int,
    aten._log_softmax.default: aten.log_softmax.int,
    aten.special_softmax.default: aten.softmax.int,
    aten.special_log_softmax.default: aten.log_softmax.int,
    aten.special_erf.default: aten.erf.default,
    aten.special_expit.default: aten.sigmoid.default,
    aten.norm.Scalar: aten.linalg_vector_norm.default,
    aten.norm.ScalarOpt_dim: aten.linalg_vector_norm.default,
    aten.norm.ScalarOpt_dim_dtype: aten.linalg_vector_norm.default,
    aten.floor_divide.default: aten.div.Tensor_mode,
    aten.floor_divide.Scalar: aten.div.Tensor_mode,
}
"""Operators of which no call is canonical, and the operator (or the words) that stands for them."""

COMPOSITES = frozenset({
    AUTHORED, FAKE_QUANTIZE, FAKE_QUANTIZE_MASK, INJECT, STOP_GRADIENT,
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
    aten.adaptive_max_pool1d.default,
    aten.avg_pool1d.default,
    aten._weight_norm.default,
    aten.group_norm.default,
    aten.gru.data,
    aten.isfinite.default,
    aten.linalg_cholesky.default,
    aten.linalg_inv.default,
    aten.linalg_ldl_factor.default,
    aten.linalg_lu_factor.default,
    aten.linalg_solve.default,
    aten.linear.default,
    aten.log_sigmoid.default,
    aten.log_softmax.int,
    aten.lstm.data,
    aten.matmul.default,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.one_hot.default,
    aten.prelu.default,
    aten.repeat_interleave.self_int,
    aten.reshape.default,
    aten.rms_norm.default,
    aten.rnn_relu.data,
    aten.rnn_tanh.data,
    aten.scaled_dot_product_attention.default,
    aten.selu.default,
    aten.softmax.int,
    aten.istft.default,
    aten.stft.center,
    aten.stft.default,
    aten.special_ndtr.default,
    aten.square.default,
    aten.sym_size.int,
    aten.upsample_bicubic2d.vec,
    aten.upsample_bilinear2d.vec,
    aten.upsample_linear1d.vec,
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest3d.vec,
    aten.upsample_trilinear3d.vec,
    aten._upsample_bicubic2d_aa.vec,
    aten._upsample_bilinear2d_aa.vec,
    aten._upsample_nearest_exact1d.vec,
    aten._upsample_nearest_exact2d.vec,
    aten._upsample_nearest_exact3d.vec,
    aten.where.Scalar,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
})  # fmt: skip
"""Operators that torch composes of others and that are one operator here; every other composite is taken apart.

Those of linear algebra are here because one of their parts looks at its result and may raise, which no graph can hold;
those of spectra because torch takes them apart for one batch size only.
"""


def _clamp(x: Any, low: Any, high: Any) -> Any:
    """Numbers in floating point: both bounds are `hardtanh`, zero below alone is `relu`."""
    if not x.dtype.is_floating_point:
        return None
    if low is not None and high is not None:
        return aten.hardtanh.default
    return aten.relu.default if low == 0 and high is None else None


def _threshold(x: Any, at: Any, value: Any) -> Any:
    """Zero in place of what lies below zero is `relu`."""
    return aten.relu.default if at == 0 and value == 0 else None


def _dropout(x: Any, p: Any, train: Any) -> Any:
    """Dropout that drops nothing; where it drops, the model is in training mode and the operator stays."""
    return None if train is not False and p else _ARGUMENT


def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: Any, *rest: Any) -> Any:
    """Batch norm by stored statistics; by those of the batch it stays."""
    return None if training else aten._native_batch_norm_legit_no_training.default


def _rrelu(x: Any, lower: Any, upper: Any, training: Any, *rest: Any) -> Any:
    """Without its random slopes, which training alone draws, it is `leaky_relu`."""
    return None if training else aten.leaky_relu.default


def _pad(x: Any, sides: Any, mode: Any, value: Any) -> Any:
    """By a constant; by what stands at the border it stays."""
    return aten.constant_pad_nd.default if mode == "constant" else None


def _slice_scatter(x: Any, source: Any, *rest: Any) -> Any:
    """Writing over the whole tensor; over a part of it, it stays."""
    return "what it writes" if same_shape(x.shape, source.shape) else None


def _to_copy(x: Any, dtype: Any, layout: Any, device: Any, *rest: Any) -> Any:
    """A cast to the type that the tensor has, on the device where it is; any other one stays."""
    moves = device is not None and (device.type, device.index) not in (
        (x.device.type, i) for i in (None, x.device.index)
    )
    return _ARGUMENT if dtype in (None, x.dtype) and not moves else None


def _permute(x: Any, dims: Any) -> Any:
    """Axes counted from the end; from the front they stay."""
    return "the same with axes counted from the front" if any(d < 0 for d in dims) else None


def _cat(tensors: Any, *rest: Any) -> Any:
    """With a tensor of shape [0], which torch leaves out, beside others of a higher rank."""
    nothing = [is_nothing(tensor) for tensor in tensors]
    return aten.cat.default if any(nothing) and not all(nothing) else None


def _cumprod(x: Any, dim: Any, *rest: Any) -> Any:
    """Along an axis of a size that is known; along a free one it stays."""
    return None if is_free(x.shape[dim]) else _PARTS


def _sgn(x: Any) -> Any:
    """Of real numbers."""
    return None if x.dtype.is_complex else aten.sign.default


def _scatter_add(x: Any, dim: Any, index: Any, source: Any) -> Any:
    """Along whole lines; any other stays."""
    return _PARTS if in_lines(x, dim, index, source) else None


def _topk(x: Any, k: Any, dim: Any, largest: Any, ordered: Any) -> Any:
    """In no order, which is any order."""
    return None if ordered else "the same in order"


def _div_mode(a: Any, b: Any, mode: Any) -> Any:
    """Not rounded; rounded it stays."""
    return aten.div.Tensor if mode is None else None


def _vector_norm(x: Any, order: Any, *rest: Any) -> Any:
    """Of order 0, which counts; any other measures."""
    return _PARTS if order == 0 else None


def _recurrent(x: Any, states: Any, params: Any, biases: Any, layers: Any, dropout: Any, train: Any, *rest: Any) -> Any:
    """Any but one that drops out values between its layers, which it does in training mode."""
    return None if train and dropout and layers > 1 else _STEPS


def _pool(spatial: int) -> Condition:
    """Pooling without an axis for channels, as `F.max_pool1d` takes `[batch, time]`."""

    def condition(x: Any, *rest: Any) -> Any:
        return "the same with an axis of one channel" if x.ndim == spatial + 1 else None

    return condition


NOT_CANONICAL_IF: dict[Any, Condition] = {
    aten.clamp.default: _clamp,
    aten.threshold.default: _threshold,
    aten.dropout.default: _dropout,
    aten.feature_dropout.default: _dropout,
    aten.alpha_dropout.default: _dropout,
    aten.feature_alpha_dropout.default: _dropout,
    aten.native_dropout.default: _dropout,
    aten.batch_norm.default: _batch_norm,
    aten.rrelu.default: _rrelu,
    aten.pad.default: _pad,
    aten.cat.default: _cat,
    aten.slice_scatter.default: _slice_scatter,
    aten._to_copy.default: _to_copy,
    aten.permute.default: _permute,
    aten.cumprod.default: _cumprod,
    aten.sgn.default: _sgn,
    aten.topk.default: _topk,
    aten.scatter_add.default: _scatter_add,
    aten.linalg_vector_norm.default: _vector_norm,
    aten.div.Tensor_mode: _div_mode,
    aten.div.Scalar_mode: _div_mode,
    **dict.fromkeys((LSTM, GRU, RNN_TANH, RNN_RELU), _recurrent),
    **dict.fromkeys((aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input), _recurrent),
    **{
        getattr(aten, f"{kind}_pool{n}d").default: _pool(n)
        for kind in ("max", "avg", "adaptive_max", "adaptive_avg")
        for n in (1, 2, 3)
    },
}
"""Operators of which some calls are not canonical: which ones says the condition, by the arguments of the call."""

_OTHER_DERIVATIVES = {aten.conv_tbc_backward.default, aten._convolution_double_backward.default}


def instead_of(target: Any, arguments: tuple[Any, ...]) -> Any:
    """The operator (or the words for what) is the canonical spelling of a call, None if the call is canonical itself.

    Args:
        target: the operator that is called.
        arguments: all its arguments in schema order; fake tensors, or anything else with their shapes and types.
    """
    if target in NOT_CANONICAL:
        return NOT_CANONICAL[target]
    if of_torchvision(target) is not None:
        return _PARTS
    if target in NOT_CANONICAL_IF:
        return NOT_CANONICAL_IF[target](*arguments)
    if isinstance(target, torch._ops.OpOverload) and target.namespace == "aten" and is_composite(target):
        return _PARTS
    return None


def canonical_name(node: fx.Node) -> str | None:
    """The name of the canonical spelling of a node's call, None if the node is canonical itself."""
    found = instead_of(node.target, fx.map_arg(schema_arguments(node), lambda n: n.meta["val"]))
    return found if found is None or isinstance(found, str) else operator_name(found)


def is_composite(op: torch._ops.OpOverload) -> bool:
    """Whether torch composes the operator of others, has no derivative of its own for it, and neither have we a use."""
    if op in COMPOSITES or op in NOT_CANONICAL_IF:
        return False
    has = functools.partial(torch._C._dispatch_has_kernel_for_dispatch_key, op.name())
    return has("CompositeImplicitAutograd") and not has("Autograd")


def takes_gradient(op: torch._ops.OpOverload) -> bool:
    """Whether an operator is a derivative of autograd's own: its schema takes the gradient of an output as a tensor."""
    return op in _OTHER_DERIVATIVES or any(
        argument.name.startswith("grad") and "Tensor" in str(argument.type) for argument in op._schema.arguments
    )
