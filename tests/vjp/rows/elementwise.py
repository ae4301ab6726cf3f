"""Rows of arithmetic, functions of one number, gates, and operators that are constant between jumps."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from fxpullback.graph.fake_quantized import FAKE_QUANTIZE
from fxpullback.graph.ir import INJECT, STOP_GRADIENT, aten, inject, stop_gradient
from tests.helpers import draw
from tests.vjp.rows.row import Row, pointwise, positive, ties, weighted, wide

ARITHMETIC = [
    pointwise(aten.neg.default),
    Row(aten.add.Tensor, lambda x: x[:, :1] + x[:, 1:], (4, 5)),
    Row(aten.add.Tensor, weighted(lambda x, a: torch.add(x, a, alpha=3), draw(5)), (4, 5), note="constant"),
    Row(aten.add.Tensor, lambda x: torch.add(x[:, 0], x[:, 1], alpha=-0.5), (2, 5), note="alpha"),
    Row(aten.add.Tensor, lambda x: x + 2.5, (4, 5), note="number"),
    Row(aten.sub.Tensor, lambda x: x[:, :1] - x[:, 1:], (4, 5)),
    Row(aten.sub.Tensor, lambda x: torch.sub(x[:, 0], x[:, 1], alpha=3), (2, 5), note="alpha"),
    Row(aten.rsub.Scalar, lambda x: torch.rsub(x, 2.0, alpha=3), (4, 5)),
    Row(aten.rsub.Scalar, lambda x: 2.0 - x, (4, 5), note="plain"),
    Row(aten.mul.Tensor, lambda x: x[:, :1] * x[:, 1:], (4, 5)),
    Row(aten.mul.Tensor, lambda x: x * x, (4, 5), note="same"),
    Row(aten.mul.Tensor, weighted(lambda x, a: a * x, draw(4, 1)), (4, 5), note="constant"),
    Row(aten.div.Tensor, lambda x: x[:, :1] / x[:, 1:], (4, 5), positive),
    Row(aten.div.Tensor, weighted(lambda x, a: a / x, draw(5)), (4, 5), positive, note="constant"),
    Row(aten.div.Tensor, lambda x: x / x.shape[1], (4, 5), note="number"),
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
]

FUNCTIONS = [
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
]

_SCALES, _ZEROS = torch.tensor([0.3125, 0.75, 1.75]), torch.tensor([0, 2, -3], dtype=torch.int32)

GATES = [
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
    Row(FAKE_QUANTIZE, lambda x: torch.fake_quantize_per_tensor_affine(x, 0.3125, 2, 0, 7), (3, 7), wide),
    Row(
        FAKE_QUANTIZE,
        weighted(lambda x, s, z: torch.fake_quantize_per_channel_affine(x, s, z, 1, -4, 3), _SCALES, _ZEROS),
        (3, 7),
        wide,
        "channels",
    ),
]

_STEPS = [aten.sign, aten.floor, aten.ceil, aten.round, aten.trunc, aten.zeros_like, aten.ones_like]
_COMPARISONS = [aten.eq, aten.ne, aten.lt, aten.le, aten.gt, aten.ge]
CONSTANT = [
    *(Row(op.default, weighted(lambda x, op: x * 2 + op.default(x), op), (3, 7), wide) for op in _STEPS),
    Row(aten.div.Tensor_mode, lambda x: x * 2 + torch.div(x, x[:, :1] + 9, rounding_mode="floor"), (3, 7), wide),
    Row(aten.div.Tensor_mode, lambda x: x * 2 + torch.div(x, 0.3, rounding_mode="trunc"), (3, 7), wide, "number"),
    Row(aten.div.Scalar_mode, lambda x: aten.div.Scalar_mode(x, 0.3, rounding_mode="trunc"), (3, 7), captured=False),
    Row(aten.full_like.default, lambda x: x * 2 + torch.full_like(x, 3.0), (3, 7)),
    *(Row(op.Scalar, weighted(lambda x, op: x * op.Scalar(x, 1.0).double(), op), (3, 7), wide) for op in _COMPARISONS),
    Row(aten.argmax.default, lambda x: x * aten.argmax.default(x, 2, True).double(), (3, 7)),
    Row(aten.argmin.default, lambda x: x * aten.argmin.default(x, 2, True).double(), (3, 7)),
]
