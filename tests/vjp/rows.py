"""One row and more for every operator of the VJP table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.graph.ir import INJECT, STOP_GRADIENT, aten, inject, stop_gradient
from tests.helpers import TOLERANCE, draw

Make = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Row:
    """One use of one operator.

    Attributes:
        target: the operator the row is about.
        function: a function of a batch `[batch, *sizes]` that calls it.
        sizes: sizes of one sample.
        values: what makes the input of standard normal numbers, for operators of limited range or with kinks.
        note: added to the name where an operator has several rows.
        captured: whether the operator is there after capture; else it is a spelling that capture replaces, and the
            rule is called on tensors alone.
        tolerance: a looser one has its reason beside the row.
    """

    target: Any
    function: Make
    sizes: tuple[int, ...]
    values: Make = lambda z: z
    note: str = ""
    captured: bool = True
    tolerance: float = TOLERANCE

    @property
    def name(self) -> str:
        return str(self.target).removesuffix(".default") + (f"-{self.note}" if self.note else "")


def weighted(function: Callable[..., Any], *weights: Any) -> Make:
    """A function of the input alone; its weights are drawn once, outside the capture."""
    return lambda x: function(x, *weights)


def pointwise(target: Any, *arguments: Any, **options: Any) -> Row:
    return Row(target, lambda x: target(x, *arguments), (3, 7), **options)


def on(target: Any, sizes: tuple[int, ...], *arguments: Any, note: str = "", captured: bool = True) -> Row:
    return Row(target, lambda x: target(x, *arguments), sizes, note=note, captured=captured)


def positive(z: Tensor) -> Tensor:
    return z.abs() + 0.1


def wide(z: Tensor) -> Tensor:
    """Values on both sides of every kink, and on the kinks at 0, +-0.5, +-1, +-3 and 6."""
    flat = (z * 4).flatten()
    kinks = torch.tensor([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0, 6.0, 30.0, -30.0], dtype=z.dtype)
    flat[: len(kinks)] = kinks
    return flat.reshape(z.shape)


def ties(z: Tensor) -> Tensor:
    """Few values, so that many are equal."""
    return z.round()


ELEMENTWISE = [
    pointwise(aten.neg.default),
    pointwise(aten.pow.Tensor_Scalar, 2),
    pointwise(aten.pow.Tensor_Scalar, 3, note="cube"),
    pointwise(aten.pow.Tensor_Scalar, 0.5, values=positive, note="root"),
    pointwise(aten.pow.Tensor_Scalar, -1.5, values=positive, note="negative"),
    pointwise(aten.pow.Tensor_Scalar, 0, values=ties, note="zeroth"),
    pointwise(aten.pow.Tensor_Scalar, 1, values=ties, note="first"),
    pointwise(aten.square.default),
    pointwise(aten.sqrt.default, values=positive),
    pointwise(aten.rsqrt.default, values=positive),
    pointwise(aten.reciprocal.default, values=positive),
    pointwise(aten.exp.default),
    pointwise(aten.expm1.default),
    pointwise(aten.log.default, values=positive),
    pointwise(aten.log1p.default, values=positive),
    pointwise(aten.log2.default, values=positive),
    pointwise(aten.sin.default),
    pointwise(aten.cos.default),
    pointwise(aten.abs.default, values=wide),
    pointwise(aten.erf.default, values=wide),
    pointwise(aten.special_ndtr.default, values=wide),
    pointwise(aten.sigmoid.default, values=wide),
    pointwise(aten.tanh.default, values=wide),
    pointwise(aten.relu.default, values=wide),
    pointwise(aten.silu.default, values=wide),
    pointwise(aten.gelu.default, values=wide),
    Row(aten.gelu.default, lambda x: F.gelu(x, approximate="tanh"), (3, 7), wide, "tanh"),
    pointwise(aten.mish.default, values=wide),
    pointwise(aten.hardswish.default, values=wide),
    # torch's own derivative has its 1/6 in float32
    pointwise(aten.hardsigmoid.default, values=wide, tolerance=1e-7),
    pointwise(aten.hardtanh.default, values=wide),
    pointwise(aten.hardtanh.default, 0.0, 6.0, values=wide, note="relu6"),
    pointwise(aten.clamp_min.default, 0.5, values=wide),
    pointwise(aten.clamp_max.default, 0.5, values=wide),
    pointwise(aten.clamp.default, 0.5, values=wide),
    pointwise(aten.clamp.default, None, 0.5, values=wide, note="above"),
    pointwise(aten.threshold.default, 0.5, 2.0, values=wide),
    pointwise(aten.leaky_relu.default, 0.1, values=wide),
    Row(aten.prelu.default, weighted(lambda x, a: F.prelu(x, a.abs()), draw(3)), (3, 7), wide, "channels"),
    Row(aten.prelu.default, weighted(lambda x, a: F.prelu(x, a.abs()), draw(1)), (3, 7), wide),
    pointwise(aten.elu.default, values=wide),
    pointwise(aten.elu.default, 0.7, 1.3, 0.9, values=wide, note="scaled"),
    pointwise(aten.selu.default, values=wide),
    pointwise(aten.celu.default, 0.5, values=wide),
    pointwise(aten.softplus.default, values=wide),
    pointwise(aten.softplus.default, 2.0, 5.0, values=wide, note="beta"),
    pointwise(aten.log_sigmoid.default, values=wide),
    pointwise(aten.softshrink.default, values=wide, captured=False),
    pointwise(aten.hardshrink.default, values=wide, captured=False),
]

ARITHMETIC = [
    Row(aten.add.Tensor, lambda x: x[:, :1] + x[:, 1:], (4, 5)),
    Row(aten.add.Tensor, weighted(lambda x, a: torch.add(x, a, alpha=3), draw(5)), (4, 5), note="constant"),
    Row(aten.add.Tensor, lambda x: torch.add(x[:, 0], x[:, 1], alpha=-0.5), (2, 5), note="alpha"),
    Row(aten.add.Tensor, lambda x: x + 2.5, (4, 5), note="number"),
    on(aten.add.Scalar, (4, 5), 2.5, 2.0),
    Row(aten.sub.Tensor, lambda x: x[:, :1] - x[:, 1:], (4, 5)),
    Row(aten.sub.Tensor, lambda x: torch.sub(x[:, 0], x[:, 1], alpha=3), (2, 5), note="alpha"),
    on(aten.sub.Scalar, (4, 5), 2.5, 2.0),
    Row(aten.rsub.Scalar, lambda x: torch.rsub(x, 2.0, alpha=3), (4, 5)),
    Row(aten.rsub.Scalar, lambda x: 2.0 - x, (4, 5), note="plain"),
    Row(aten.mul.Tensor, lambda x: x[:, :1] * x[:, 1:], (4, 5)),
    Row(aten.mul.Tensor, lambda x: x * x, (4, 5), note="same"),
    Row(aten.mul.Tensor, weighted(lambda x, a: a * x, draw(4, 1)), (4, 5), note="constant"),
    on(aten.mul.Scalar, (4, 5), 2.5),
    Row(aten.div.Tensor, lambda x: x[:, :1] / x[:, 1:], (4, 5), positive),
    Row(aten.div.Tensor, weighted(lambda x, a: a / x, draw(5)), (4, 5), positive, note="constant"),
    Row(aten.div.Tensor, lambda x: x / x.shape[1], (4, 5), note="number"),
    on(aten.div.Scalar, (4, 5), 2.5),
    Row(aten.maximum.default, lambda x: torch.maximum(x[:, :1], x[:, 1:]), (4, 7), ties),
    Row(aten.minimum.default, lambda x: torch.minimum(x[:, :1], x[:, 1:]), (4, 7), ties),
    Row(aten.addcmul.default, weighted(lambda x, a: torch.addcmul(x[:, :1], x[:, 1:2], a, value=0.5), draw(4)), (2, 4)),
    Row(aten.addcmul.default, lambda x: torch.addcmul(x[:, :1], x[:, 1:2], x[:, 2:]), (3, 4), note="picture"),
    Row(aten.where.self, lambda x: torch.where(x[:, :1] > 0, x[:, 1:2], x[:, 2:]), (5, 4)),
    Row(aten.where.self, weighted(lambda x, a, b: torch.where(a > 0, x, b), draw(4), draw(1)), (5, 4), note="constant"),
    Row(aten.where.ScalarOther, lambda x: aten.where.ScalarOther(x > 0.3, x, -1.0), (5, 4)),
    Row(aten.where.ScalarSelf, lambda x: aten.where.ScalarSelf(x > 0.3, -1.0, x), (5, 4)),
    Row(aten.masked_fill.Scalar, weighted(lambda x, a: x.masked_fill(a > 0, -7.0), draw(4)), (5, 4)),
    Row(STOP_GRADIENT, lambda x: x * stop_gradient(torch.sin(x)), (5, 4)),
    Row(INJECT, lambda x: inject(x.relu(), x * 0.25), (5, 4)),
    Row(aten._to_copy.default, lambda x: x.float().double(), (5, 4), lambda z: z.float().double()),
    on(aten.clone.default, (5, 4), captured=False),
]

_STEPS = [aten.sign, aten.floor, aten.ceil, aten.round, aten.trunc, aten.zeros_like, aten.ones_like]
_COMPARISONS = [aten.eq, aten.ne, aten.lt, aten.le, aten.gt, aten.ge]
CONSTANT = [
    *(Row(op.default, weighted(lambda x, op: x * 2 + op.default(x), op), (3, 7), wide) for op in _STEPS),
    Row(aten.full_like.default, lambda x: x * 2 + torch.full_like(x, 3.0), (3, 7)),
    *(Row(op.Scalar, weighted(lambda x, op: x * op.Scalar(x, 1.0).double(), op), (3, 7), wide) for op in _COMPARISONS),
    Row(aten.argmax.default, lambda x: x * aten.argmax.default(x, 2, True).double(), (3, 7)),
    Row(aten.argmin.default, lambda x: x * aten.argmin.default(x, 2, True).double(), (3, 7)),
]


def _attention(**options: Any) -> Make:
    def function(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x[:, 0], x[:, 1], x[:, 2], **options)

    return function


def _grouped(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x[:, :4], x[:, 4:6], x[:, 6:8], enable_gqa=True)


SDPA = aten.scaled_dot_product_attention.default
ATTENTION = [
    on(aten.softmax.int, (3, 5), -1),
    on(aten.softmax.int, (3, 5), 1, note="inner"),
    on(aten.log_softmax.int, (3, 5), 2),
    Row(SDPA, _attention(), (3, 2, 4, 5)),
    Row(SDPA, _attention(scale=0.3), (3, 2, 4, 5), note="scale"),
    Row(SDPA, _attention(is_causal=True), (3, 2, 4, 5), note="causal"),
    Row(SDPA, _attention(attn_mask=draw(4, 4)), (3, 2, 4, 5), note="mask"),
    Row(SDPA, _attention(attn_mask=torch.ones(4, 4, dtype=torch.bool).tril()), (3, 2, 4, 5), note="boolean-mask"),
    Row(SDPA, _attention(), (3, 4, 5), note="one-head"),
    Row(SDPA, _grouped, (8, 3, 5), note="grouped"),
    Row(
        SDPA,
        weighted(
            lambda x, a: F.scaled_dot_product_attention(x[:, 0], x[:, 1], x[:, 2], attn_mask=x[:, 3] @ a), draw(5, 4)
        ),
        (4, 2, 4, 5),
        note="computed-mask",
    ),
]


def _conv(function: Any, weight: tuple[int, ...], bias: int = 0, **options: Any) -> Make:
    w, b = draw(*weight, seed=1), draw(bias, seed=2) if bias else None
    return lambda x: function(x, w, b, **options)


CONV = aten.convolution.default
CONVOLUTION = [
    Row(CONV, _conv(F.conv2d, (4, 3, 3, 3), 4), (3, 7, 8)),
    Row(CONV, _conv(F.conv2d, (4, 3, 3, 2), 4, stride=(2, 3), padding=(1, 0)), (3, 7, 9), note="stride"),
    Row(CONV, _conv(F.conv2d, (4, 3, 4, 4), stride=4), (3, 11, 10), note="patches-left-over"),
    Row(CONV, _conv(F.conv2d, (4, 3, 3, 3), dilation=2, padding=2), (3, 7, 8), note="dilation"),
    Row(CONV, _conv(F.conv2d, (4, 2, 3, 3), groups=2, padding=1), (4, 7, 8), note="groups"),
    Row(CONV, _conv(F.conv2d, (4, 1, 3, 3), groups=4, stride=2, padding=1), (4, 8, 8), note="depthwise"),
    Row(CONV, _conv(F.conv2d, (8, 1, 3, 3), groups=4), (4, 6, 6), note="depthwise-multiplied"),
    Row(CONV, _conv(F.conv2d, (4, 3, 1, 1), padding=2), (3, 4, 5), note="padding-beyond-kernel"),
    Row(CONV, _conv(F.conv2d, (4, 3, 2, 2), padding="same"), (3, 5, 5), note="same"),
    Row(CONV, _conv(F.conv1d, (4, 3, 3), 4, stride=2), (3, 9), note="1d"),
    Row(CONV, _conv(F.conv3d, (4, 3, 2, 2, 2), stride=2), (3, 4, 5, 4), note="3d"),
    Row(CONV, _conv(F.conv_transpose2d, (3, 4, 3, 3), 4, stride=2, padding=1, output_padding=1), (3, 4, 5), note="up"),
    Row(CONV, _conv(F.conv_transpose2d, (4, 2, 3, 3), groups=2, dilation=2), (4, 4, 5), note="up-groups"),
    Row(CONV, _conv(F.conv_transpose1d, (3, 4, 4), stride=2), (3, 5), note="up-1d"),
    Row(CONV, _conv(F.conv_transpose3d, (3, 2, 2, 2, 2), stride=2), (3, 2, 3, 2), note="up-3d"),
]

MATRICES = [
    Row(aten.linear.default, weighted(lambda x, a, b: F.linear(x, a, b), draw(4, 5), draw(4)), (5,)),
    Row(aten.linear.default, weighted(lambda x, a: F.linear(x, a), draw(4, 5)), (2, 3, 5), note="tokens"),
    Row(aten.matmul.default, lambda x: x[:, 0] @ x[:, 1].transpose(-2, -1), (2, 3, 4)),
    Row(aten.matmul.default, lambda x: x @ x, (3, 3), note="same"),
    Row(aten.matmul.default, weighted(lambda x, a: x @ a, draw(4, 6)), (2, 3, 4), note="right"),
    Row(aten.matmul.default, weighted(lambda x, a: a @ x, draw(6, 3)), (2, 3, 4), note="left"),
    Row(aten.matmul.default, lambda x: x[:, :1] @ x[:, 1:].transpose(-2, -1), (4, 3, 5), note="broadcast"),
    Row(aten.matmul.default, weighted(lambda x, a: x @ a, draw(4)), (2, 3, 4), note="vector"),
    Row(aten.matmul.default, weighted(lambda x, a: a @ x, draw(3)), (2, 3, 4), note="vector-left"),
    Row(
        aten.addmm.default, weighted(lambda x, a, b: torch.addmm(a, x, b, beta=0.5, alpha=2), draw(6), draw(5, 6)), (5,)
    ),
    Row(aten.addmm.default, weighted(lambda x, a: torch.addmm(x, x, a), draw(5, 5)), (5,), note="sum"),
    Row(
        aten.baddbmm.default,
        lambda x: torch.baddbmm(x[:, 0], x[:, 1], x[:, 2], beta=0.5, alpha=2),
        (3, 4, 4),
    ),
]

NORMALIZATION = [
    Row(aten.native_layer_norm.default, weighted(lambda x, a: F.layer_norm(x, [6], a, a), draw(6)), (4, 6)),
    Row(aten.native_layer_norm.default, lambda x: F.layer_norm(x, [4, 6], eps=0.1), (4, 6), note="two-axes"),
    Row(aten.group_norm.default, weighted(lambda x, a: F.group_norm(x, 2, a, a), draw(6)), (6, 3, 4)),
    Row(aten.group_norm.default, lambda x: F.group_norm(x, 3), (6, 4), note="plain"),
    Row(
        aten.group_norm.default,
        weighted(lambda x, a: F.instance_norm(x, weight=a, bias=a), draw(6)),
        (6, 3, 4),
        note="instance",
    ),
    Row(aten.rms_norm.default, weighted(lambda x, a: F.rms_norm(x, [6], a, 0.1), draw(6)), (4, 6)),
    Row(aten.rms_norm.default, lambda x: F.rms_norm(x, [4, 6]), (4, 6), note="plain"),
    Row(
        aten._native_batch_norm_legit_no_training.default,
        weighted(lambda x, a, b, c: F.batch_norm(x, a, a.abs(), b, c), draw(6), draw(6, seed=1), draw(6, seed=2)),
        (6, 3, 4),
    ),
    Row(
        aten._native_batch_norm_legit_no_training.default,
        weighted(lambda x, a: F.batch_norm(x, a, a.abs()), draw(6)),
        (6,),
        note="plain",
    ),
]

POOLS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((7, 8), {"kernel_size": 2}),
    ((7, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((7, 8), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    ((8, 7), {"kernel_size": (2, 3), "stride": (3, 1), "padding": (1, 0)}),
    ((8, 8), {"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True}),
    ((9, 9), {"kernel_size": 2, "stride": 5}),
]
DILATED: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((9, 9), {"kernel_size": 3, "dilation": 2, "padding": 1}),
    ((9, 8), {"kernel_size": 2, "dilation": (3, 2), "stride": 2, "ceil_mode": True}),
]
AVERAGED: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((7, 8), {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
    ((7, 8), {"kernel_size": 3, "stride": 2, "padding": 1, "divisor_override": 5}),
    ((6, 6), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}),
]


def _pool(function: Any, options: dict[str, Any]) -> Make:
    return lambda x: function(x, **options)


POOLING = [
    *(
        Row(aten.max_pool2d.default, _pool(F.max_pool2d, o), (2, *s), ties, note=f"{i}")
        for i, (s, o) in enumerate(POOLS + DILATED)
    ),
    *(
        Row(aten.avg_pool2d.default, _pool(F.avg_pool2d, o), (2, *s), note=f"{i}")
        for i, (s, o) in enumerate(POOLS + AVERAGED)
    ),
    Row(aten.max_pool1d.default, lambda x: F.max_pool1d(x, 3, 2, 1), (2, 9), ties),
    Row(aten.max_pool3d.default, lambda x: F.max_pool3d(x, 2, ceil_mode=True), (2, 4, 5, 4)),
    Row(aten.adaptive_max_pool1d.default, lambda x: F.adaptive_max_pool1d(x, 3), (2, 7), ties),
    Row(aten.adaptive_max_pool2d.default, lambda x: F.adaptive_max_pool2d(x, (3, 2)), (2, 5, 6), ties),
    Row(aten.adaptive_max_pool2d.default, lambda x: F.adaptive_max_pool2d(x, 1), (2, 5, 6), note="global"),
    Row(aten.adaptive_max_pool3d.default, lambda x: F.adaptive_max_pool3d(x, (3, 2, 1)), (2, 5, 3, 2)),
    Row(aten.avg_pool1d.default, lambda x: F.avg_pool1d(x, 3, 2, 1), (2, 9)),
    Row(aten.avg_pool3d.default, lambda x: F.avg_pool3d(x, 2, 1, 1), (2, 4, 5, 4)),
    Row(aten.adaptive_avg_pool1d.default, lambda x: F.adaptive_avg_pool1d(x, 3), (2, 8)),
    Row(aten.adaptive_avg_pool2d.default, lambda x: F.adaptive_avg_pool2d(x, 1), (2, 5, 6)),
    Row(aten.adaptive_avg_pool2d.default, lambda x: F.adaptive_avg_pool2d(x, (3, 2)), (2, 5, 6), note="uneven"),
    Row(aten.adaptive_avg_pool2d.default, lambda x: F.adaptive_avg_pool2d(x, 7), (2, 3, 3), note="larger"),
    Row(aten.adaptive_avg_pool3d.default, lambda x: F.adaptive_avg_pool3d(x, (2, 1, 3)), (2, 4, 5, 4)),
]

REDUCTION = [
    on(aten.sum.dim_IntList, (3, 4), [1]),
    on(aten.sum.dim_IntList, (3, 4), [-1, 1], True, note="kept"),
    on(aten.mean.dim, (3, 4), [2]),
    on(aten.mean.dim, (3, 4, 5), [-1, 1], True, note="kept"),
    on(aten.cumsum.default, (3, 4), 1),
    Row(aten.amax.default, lambda x: x.amax(2), (3, 9), ties),
    Row(aten.amax.default, lambda x: x.amax((1, 2), True), (3, 9), ties, note="kept"),
    Row(aten.amin.default, lambda x: x.amin(1), (3, 9), ties),
    Row(aten.max.dim, lambda x: x.max(2).values, (3, 9)),
    Row(aten.max.dim, lambda x: x.max(1, True)[0], (3, 9), note="kept"),
    Row(aten.min.dim, lambda x: x.min(1).values, (3, 9)),
    Row(aten.topk.default, lambda x: x.topk(3, -1).values, (3, 9)),
    Row(aten.topk.default, lambda x: x.topk(2, 1, largest=False).values, (3, 9), note="smallest"),
    Row(aten.sort.default, weighted(lambda x, a: x.sort(-1).values * a, draw(9)), (3, 9)),
    Row(aten.sort.default, lambda x: x.sort(1, descending=True).values, (3, 9), note="falling"),
    Row(aten.var.correction, lambda x: x.var(2), (3, 9)),
    Row(aten.var.correction, lambda x: x.var((1, 2), correction=0, keepdim=True), (3, 9), note="kept"),
    Row(aten.std.correction, lambda x: x.std(2), (3, 9)),
    Row(aten.std.correction, lambda x: x.std((1, 2), correction=0, keepdim=True), (3, 9), note="kept"),
    Row(aten.var_mean.correction, lambda x: torch.cat(torch.var_mean(x, 2), 1), (3, 9)),
    Row(aten.var_mean.correction, lambda x: torch.var_mean(x, 1, correction=0)[0], (3, 9), note="variance"),
    Row(aten.var_mean.correction, lambda x: torch.var_mean(x, 1, keepdim=True)[1], (3, 9), note="mean"),
    Row(aten.linalg_vector_norm.default, lambda x: torch.linalg.vector_norm(x, dim=2), (3, 9)),
    Row(aten.linalg_vector_norm.default, lambda x: torch.linalg.vector_norm(x * 0.0, dim=2), (3, 9), note="zero"),
    Row(aten.linalg_vector_norm.default, lambda x: torch.linalg.vector_norm(x, 1, 1, True), (3, 9), note="one"),
    on(aten.logsumexp.default, (3, 9), [2]),
    on(aten.logsumexp.default, (3, 9), [1], True, note="kept"),
]

_ROWS, _COLUMNS = torch.tensor([0, 2, 2, -1]), torch.tensor([1, 1, 0, -2])
INDEXING = [
    Row(aten.index_select.default, lambda x: x.index_select(2, torch.tensor([3, 0, 3])), (3, 5)),
    Row(aten.index.Tensor, lambda x: x[:, _ROWS], (3, 5)),
    Row(aten.index.Tensor, lambda x: x[:, _ROWS, _COLUMNS], (3, 5), note="pairs"),
    Row(aten.index.Tensor, lambda x: x[:, :, _COLUMNS.reshape(2, 2)], (3, 5), note="grid"),
    Row(aten.gather.default, lambda x: x.gather(2, (x > 0).long()), (3, 5)),
    Row(aten.gather.default, lambda x: x.gather(1, x.argsort(1)[:, :2]), (3, 5), note="order"),
    on(aten.unfold.default, (3, 9), 2, 3, 2),
    on(aten.unfold.default, (3, 9), 2, 2, 3, note="gaps"),
    on(aten.unfold.default, (9, 3), 1, 3, 1, note="overlapping"),
    on(aten.im2col.default, (3, 7, 8), [3, 2], [1, 2], [1, 0], [2, 1]),
    on(aten.im2col.default, (2, 6, 4), [2, 2], [1, 1], [0, 0], [2, 2], note="tiles"),
    on(aten.col2im.default, (18, 36), [7, 9], [3, 2], [1, 2], [1, 1], [2, 1]),
    on(aten.col2im.default, (8, 6), [6, 4], [2, 2], [1, 1], [0, 0], [2, 2], note="tiles"),
]


def _resize(**options: Any) -> Make:
    return lambda x: F.interpolate(x, **options)


RESIZE = [
    Row(aten.upsample_nearest2d.vec, _resize(scale_factor=2), (2, 3, 4)),
    Row(aten.upsample_nearest2d.vec, _resize(size=(5, 7)), (2, 3, 4), note="uneven"),
    Row(aten.upsample_nearest2d.vec, _resize(size=(2, 3)), (2, 5, 7), note="down"),
    Row(aten.upsample_nearest2d.vec, _resize(scale_factor=1.6), (2, 5, 7), note="fraction"),
    Row(aten.upsample_nearest1d.vec, _resize(scale_factor=3), (2, 4)),
    Row(aten.upsample_nearest3d.vec, _resize(size=(4, 6, 3)), (2, 2, 3, 2)),
    Row(aten.upsample_linear1d.vec, _resize(size=7, mode="linear"), (2, 4)),
    Row(aten.upsample_bilinear2d.vec, _resize(size=(5, 7), mode="bilinear"), (2, 3, 4)),
    Row(
        aten.upsample_bilinear2d.vec,
        _resize(size=(5, 7), mode="bilinear", align_corners=True),
        (2, 3, 4),
        note="corners",
    ),
    Row(aten.upsample_bilinear2d.vec, _resize(scale_factor=1.6, mode="bilinear"), (2, 5, 7), note="fraction"),
    Row(aten.upsample_bicubic2d.vec, _resize(size=(5, 7), mode="bicubic"), (2, 3, 4)),
    Row(
        aten.upsample_bicubic2d.vec, _resize(size=(5, 7), mode="bicubic", align_corners=True), (2, 3, 4), note="corners"
    ),
    Row(aten.upsample_trilinear3d.vec, _resize(scale_factor=2, mode="trilinear"), (2, 2, 3, 2)),
    Row(aten.upsample_trilinear3d.vec, _resize(size=(3, 5, 2), mode="trilinear"), (2, 2, 3, 4), note="uneven"),
    Row(aten._upsample_nearest_exact1d.vec, _resize(size=7, mode="nearest-exact"), (2, 5)),
    Row(aten._upsample_nearest_exact2d.vec, _resize(size=(3, 8), mode="nearest-exact"), (2, 4, 5)),
    Row(aten._upsample_nearest_exact3d.vec, _resize(scale_factor=2, mode="nearest-exact"), (2, 2, 3, 2)),
    on(aten.upsample_linear1d.default, (2, 4), [7], False, captured=False),
    on(aten.upsample_trilinear3d.default, (2, 2, 3, 2), [4, 5, 3], True, captured=False),
    on(aten.upsample_nearest1d.default, (2, 4), [6]),
    on(aten.upsample_nearest2d.default, (2, 3, 4), [6, 5]),
    on(aten.upsample_nearest2d.default, (2, 5, 5), [8, 8], 1.6, 1.6, note="scales"),
    on(aten.upsample_nearest3d.default, (2, 2, 3, 2), [4, 6, 3]),
    on(aten.upsample_bilinear2d.default, (2, 3, 4), [5, 7], False, captured=False),
    on(aten.upsample_bilinear2d.default, (2, 5, 5), [8, 8], False, 1.6, 1.6, note="scales", captured=False),
    on(aten.upsample_bicubic2d.default, (2, 3, 4), [5, 7], False, captured=False),
]

SHAPE = [
    Row(aten.reshape.default, weighted(lambda x, a: x.reshape(x.shape[0], 4, 3) * a, draw(4, 3)), (3, 4)),
    Row(aten.view.default, lambda x: aten.view.default(x, [x.shape[0], 4, 3]), (3, 4), captured=False),
    Row(aten.unflatten.int, lambda x: aten.unflatten.int(x, 1, [2, 3]), (6, 4), captured=False),
    Row(aten.squeeze.default, lambda x: aten.squeeze.default(x), (1, 4), captured=False),
    on(aten.squeeze.dim, (1, 4), 1),
    on(aten.squeeze.dims, (1, 4, 1), [1, 3]),
    on(aten.unsqueeze.default, (3, 4), -1),
    on(aten.permute.default, (3, 4, 5), [0, 3, 1, 2]),
    on(aten.transpose.int, (3, 4, 5), -1, 1),
    Row(aten.t.default, weighted(lambda x, a: aten.t.default(aten.t.default(x) * a), draw(4, 1)), (4,)),
    Row(aten.expand.default, weighted(lambda x, a: x.expand(-1, 3, 4) * a, draw(3, 4)), (1, 4)),
    Row(
        aten.expand.default,
        weighted(lambda x, a: a * x[:, None, None].expand(-1, 2, 3, 4), draw(3, 1)),
        (4,),
        note="new-axes",
    ),
    Row(aten.expand_as.default, lambda x: aten.expand_as.default(x[:, :1], x[:, 1:]), (4, 4), captured=False),
    Row(aten.view_as.default, lambda x: aten.view_as.default(x[:, :2], x[:, 2:]), (4, 4), captured=False),
    Row(aten.cat.default, lambda x: torch.cat([x[:, :1], x, x[:, 2:] * 2], 1), (3, 4)),
    Row(
        aten.cat.default,
        weighted(lambda x, a: torch.cat([a.expand(x.shape[0], 1, 4), x], -2), draw(1, 1, 4)),
        (3, 4),
        note="token",
    ),
    Row(aten.stack.default, weighted(lambda x, a: torch.stack([x, x * 2, a.expand_as(x)], -1), draw(1, 3, 4)), (3, 4)),
    Row(aten.split.Tensor, lambda x: x.split(2, 1)[0] * x.split(2, 1)[2], (6, 4)),
    Row(aten.split.Tensor, lambda x: x.split(4, -1)[1], (3, 6), note="rest"),
    Row(aten.split_with_sizes.default, lambda x: x.split([1, 3, 2], -1)[1], (3, 6)),
    Row(aten.split_with_sizes.default, lambda x: torch.cat(x.split([1, 3, 2], 1)[::-1], 1), (6, 3), note="all"),
    Row(aten.unbind.int, lambda x: x.unbind(1)[0] * x.unbind(1)[2], (4, 5)),
    on(aten.select.int, (4, 5), 1, 2),
    on(aten.select.int, (4, 5), -1, -1, note="last"),
    Row(aten.slice.Tensor, lambda x: x[:, 1:3], (5, 4)),
    Row(aten.slice.Tensor, lambda x: x[:, :, ::2], (5, 7), note="step"),
    Row(aten.slice.Tensor, lambda x: x[:, -3:-1], (5, 4), note="negative"),
    Row(aten.slice.Tensor, lambda x: x[:, 1::3], (9, 4), note="step-left-over"),
    Row(aten.constant_pad_nd.default, lambda x: F.pad(x, [1, 2, 0, 3], value=5.0), (3, 4)),
    Row(aten.constant_pad_nd.default, lambda x: F.pad(x, [-1, 2, 1, -1]), (3, 4), note="cut"),
    Row(aten.pad.default, lambda x: F.pad(x, [1, 2, 3, 0], mode="reflect"), (2, 4, 5), note="reflect"),
    Row(aten.pad.default, lambda x: F.pad(x, [1, 2, 3, 0], mode="replicate"), (2, 4, 5), note="replicate"),
    Row(aten.pad.default, lambda x: F.pad(x, [1, 2, 3, 0], mode="circular"), (2, 4, 5), note="circular"),
    on(aten.pad.default, (2, 5), [1, 2], captured=False),
    on(aten.reflection_pad1d.default, (2, 5), [1, 4]),
    on(aten.reflection_pad2d.default, (2, 4, 5), [0, 2, 3, 0]),
    on(aten.reflection_pad3d.default, (2, 4, 3, 2), [1, 0, 2, 2, 0, 3]),
    on(aten.replication_pad1d.default, (2, 5), [1, 4]),
    on(aten.replication_pad2d.default, (2, 4, 5), [0, 2, 3, 0]),
    on(aten.replication_pad3d.default, (2, 4, 3, 2), [1, 0, 2, 2, 0, 3]),
    on(aten.flip.default, (3, 4), [1, 2]),
    Row(aten.slice_scatter.default, lambda x: torch.slice_scatter(x, x[:, 2:4] * 2, 1, 1, 3), (5, 4)),
    Row(
        aten.slice_scatter.default, lambda x: torch.slice_scatter(x, x[:, :2] * 2, 1, -4, 5, 2), (5, 4), note="strided"
    ),
    on(aten.roll.default, (3, 4), [1, -2], [1, 2]),
    on(aten.repeat.default, (3, 4), [1, 2, 3]),
    on(aten.repeat_interleave.self_int, (3, 4), 2, 1),
    on(aten.pixel_shuffle.default, (8, 3, 2), 2),
    on(aten.pixel_unshuffle.default, (2, 6, 4), 2),
    on(aten.channel_shuffle.default, (6, 3, 2), 3),
    on(aten.tril.default, (4, 4), -1),
    on(aten.triu.default, (4, 4), 1),
]

GROUPS: dict[str, list[Row]] = {
    "elementwise": ELEMENTWISE,
    "arithmetic": ARITHMETIC,
    "constant": CONSTANT,
    "attention": ATTENTION,
    "convolution": CONVOLUTION,
    "matrices": MATRICES,
    "normalization": NORMALIZATION,
    "pooling": POOLING,
    "reduction": REDUCTION,
    "indexing": INDEXING,
    "resize": RESIZE,
    "shape": SHAPE,
}
ROWS = [row for rows in GROUPS.values() for row in rows]

# Sums over the whole batch: no cotangent of one sample, and the rule says so (test_sum_over_the_batch_is_refused).
REFUSED = {aten.sum.default, aten.mean.default}
