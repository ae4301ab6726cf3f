"""One row or more for every operator of the translator's table, in the spelling that capture gives it."""

from __future__ import annotations

import math

import torch

from tests.export.onnx.one_node import Batch, Input, Row, aten, bools, fixed, integers, ranged, row, x

B = Batch()
INF = math.inf


def constant(*shape: int) -> torch.Tensor:
    """A weight."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def each(names: str) -> list[str]:
    """Names, one a word."""
    return names.split()


def positive(*shape: int) -> torch.Tensor:
    """A weight above zero."""
    return constant(*shape).abs() + 0.5


def whole(high: int, *shape: int) -> torch.Tensor:
    """Indices."""
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(1))


_SMOOTH = each("neg abs exp erf sigmoid tanh sin cos atan sinh cosh asinh sign sgn floor ceil round trunc frac")
_POSITIVE = each("sqrt reciprocal log rsqrt log2 log10 acosh")
_INSIDE = each("asin acos atanh tan expm1 log1p logit special_ndtr erfc exp2 square sinc")

UNARY = [
    *(row(getattr(aten, name).default, x(5, 3)) for name in _SMOOTH),
    *(row(getattr(aten, name).default, ranged(1.1, 5.0, 5)) for name in _POSITIVE),
    *(row(getattr(aten, name).default, ranged(0.01, 0.9, 5)) for name in _INSIDE),
    row(aten.expm1.default, ranged(-1e-4, 1e-4, 50)),
    row(aten.expm1.default, ranged(-90, 80, 50)),
    row(aten.log1p.default, ranged(-1e-4, 1e-4, 50)),
    row(aten.log1p.default, ranged(-0.999, 1e6, 50)),
    row(aten.exp.default, integers(5, 3)),
    row(aten.floor.default, integers(5, 3)),
    row(aten.trunc.default, integers(5, 3)),
    row(aten.abs.default, integers(5, 3, low=-5)),
]

IDENTITY = [
    *(row(getattr(aten, name).default, x(3)) for name in each("detach_copy alias_copy")),
    row(aten._to_copy.default, integers(5, 3), dtype=torch.float32),
    row(aten._to_copy.default, x(3), dtype=torch.bool),
    row(aten._to_copy.default, x(3), dtype=torch.int64),
    row(aten._to_copy.default, x(3), dtype=torch.float64),
    row(aten._to_copy.default, bools(3), dtype=torch.float32),
]

BINARY = [
    *(row(getattr(aten, name).Tensor, x(5), ranged(0.5, 2, 5)) for name in each("mul div true_divide")),
    *(row(getattr(aten, name).Tensor, x(5), x(5), alpha=0.5) for name in each("add sub rsub")),
    *(row(getattr(aten, name).Tensor, integers(9, 5), x(5)) for name in each("add sub mul")),
    *(row(getattr(aten, name).Scalar, x(5), 1.7) for name in each("mul div add sub rsub")),
    *(row(getattr(aten, name).Scalar, integers(9, 5), 1.7) for name in each("mul add sub rsub")),
    *(row(getattr(aten, name).Tensor, integers(9, 5), 3) for name in each("add mul div sub")),
    row(aten.add.Tensor, x(5, 4), constant(4)),
    row(aten.add.Tensor, bools(5), bools(5)),
    row(aten.mul.Tensor, bools(5), bools(5)),
    row(aten.mul.Tensor, bools(5), x(5)),
    row(aten.div.Tensor, integers(9, 5), integers(9, 5, low=1)),
    *(row(aten.div.Tensor_mode, x(5), ranged(0.5, 2, 5), rounding_mode=mode) for mode in (None, "floor", "trunc")),
    *(
        row(aten.div.Tensor_mode, integers(20, 50, low=-20), integers(9, 50, low=1), rounding_mode=mode)
        for mode in (None, "floor", "trunc")
    ),
    row(aten.div.Scalar_mode, integers(20, 50, low=-20), -3, rounding_mode="floor"),
    row(aten.floor_divide.default, integers(20, 50, low=-20), integers(9, 50, low=1)),
    row(aten.floor_divide.Scalar, x(50), 0.3),
    row(aten.remainder.Tensor, integers(20, 50, low=-20), integers(9, 50, low=1)),
    row(aten.remainder.Scalar, x(50), 0.75),
    row(aten.fmod.Tensor, integers(20, 50, low=-20), integers(9, 50, low=1)),
    row(aten.fmod.Scalar, x(50), 0.75),
    *(row(aten.pow.Tensor_Scalar, ranged(0.5, 3, 5), p) for p in (1, 2, 0.5, -1, 3, 1.7, -2)),
    row(aten.pow.Tensor_Scalar, integers(5, 5), 2),
    row(aten.pow.Tensor_Tensor, ranged(0.5, 3, 5), x(5)),
    row(aten.pow.Scalar, 2.5, x(5)),
    *(row(getattr(aten, name).default, x(5), x(5)) for name in each("maximum minimum hypot atan2")),
    row(aten.clamp.default, x(5), -0.5, 0.5),
    row(aten.clamp.default, x(5), None, 0.5),
    row(aten.clip.default, x(5), -0.5),
    row(aten.clamp.Tensor, x(5), x(5), constant(5)),
    row(aten.clamp_min.default, x(5), 0),
    row(aten.clamp_min.default, integers(9, 5, low=-9), 0),
    row(aten.clamp_min.Tensor, x(5), x(5)),
    row(aten.clamp_max.default, x(5), 0.1),
    row(aten.clamp_max.Tensor, x(5), x(5)),
    row(aten.lerp.Scalar, x(5), x(5), 0.3),
    row(aten.lerp.Tensor, x(5), x(5), x(5)),
    row(aten.addcmul.default, x(5), x(5), x(5), value=0.3),
    row(aten.addcdiv.default, x(5), x(5), ranged(1, 2, 5), value=0.3),
    row(aten.xlogy.Tensor, x(5), ranged(0.1, 2, 5)),
    row(aten.outer.default, x(), fixed(4)),
    row(aten.ger.default, x(), fixed(4)),
]

COMPARISON = [
    *(row(getattr(aten, name).Tensor, integers(3, 50), integers(3, 50)) for name in each("eq ne gt ge lt le")),
    *(row(getattr(aten, name).Scalar, integers(3, 50), 1) for name in each("eq ne gt ge lt le")),
    *(row(getattr(aten, name).Scalar, x(50), 0) for name in each("eq ne gt ge lt le")),
    row(aten.gt.Scalar, integers(3, 50), 0.5),
    row(aten.gt.Tensor, bools(50), bools(50)),
    row(aten.eq.Tensor, bools(50), bools(50)),
    row(aten.ge.Tensor, integers(3, 50), x(50)),
    *(row(getattr(aten, f"logical_{name}").default, bools(9), bools(9)) for name in each("and or xor")),
    row(aten.logical_and.default, x(9), bools(9)),
    *(row(getattr(aten, f"bitwise_{name}").Tensor, bools(9), bools(9)) for name in each("and or xor")),
    *(row(getattr(aten, f"bitwise_{name}").Tensor, integers(9, 9), integers(9, 9)) for name in each("and or xor")),
    *(row(getattr(aten, f"bitwise_{name}").Scalar, integers(9, 9), 3) for name in each("and or xor")),
    *(row(getattr(aten, f"__{name}__").Tensor, bools(9), bools(9)) for name in each("and or xor")),
    row(aten.logical_not.default, x(9)),
    row(aten.bitwise_not.default, bools(9)),
    row(aten.bitwise_not.default, integers(9, 9)),
    row(aten.where.self, bools(5), x(5), constant(5)),
    row(aten.where.self, bools(5), integers(5, 5), x(5)),
    row(aten.where.ScalarOther, bools(5), x(5), -INF),
    row(aten.where.ScalarSelf, bools(5), 0, x(5)),
    row(aten.where.Scalar, bools(5), 1.0, 2.0),
    row(aten.masked_fill.Scalar, x(5), bools(5), -INF),
    row(aten.masked_fill.Tensor, x(5), bools(5), torch.tensor(2.0)),
    *(row(getattr(aten, name).default, x(5)) for name in each("isnan isinf isfinite nan_to_num")),
]

ACTIVATION = [
    *(row(getattr(aten, n).default, x(40)) for n in each("relu hardtanh silu hardsigmoid hardswish selu")),
    *(row(getattr(aten, n).default, x(40)) for n in each("mish log_sigmoid softplus leaky_relu elu celu")),
    row(aten.log_sigmoid_forward.default, x(40), outputs=(0,)),
    row(aten.gelu.default, x(40)),
    row(aten.gelu.default, x(40), approximate="tanh"),
    row(aten.hardtanh.default, x(40), -0.3, 0.4),
    row(aten.hardtanh.default, x(40), 0.0, 6.0),
    row(aten.hardtanh.default, x(40), 0.0, 1.0),
    row(aten.leaky_relu.default, x(40), 0.2),
    row(aten.elu.default, x(40), 0.7, 1.3, 0.9),
    row(aten.elu.default, x(40), 0.7, 1.3),
    row(aten.celu.default, x(40), 0.4),
    row(aten.softplus.default, x(40), 2.0, 20),
    row(aten.softplus.default, x(40), 2.0, 1),
    row(aten.prelu.default, x(4, 3), constant(4)),
    row(aten.prelu.default, x(4, 3, 3), constant(1)),
    row(aten._prelu_kernel.default, x(4, 3), constant(1, 4, 1)),
    row(aten.threshold.default, x(40), 0.1, 20),
    row(aten.softmax.int, x(4, 5), 1),
    row(aten.softmax.int, integers(4, 5), -1, torch.float32),
    row(aten.log_softmax.int, x(4, 5), 1),
    row(aten._log_softmax.default, x(4, 5), -1, False),
]

LINEAR = [
    row(aten.linear.default, x(4), constant(5, 4), constant(5)),
    row(aten.linear.default, x(4), constant(5, 4)),
    row(aten.linear.default, x(3, 4), constant(5, 4), constant(5)),
    row(aten.matmul.default, x(3, 4), x(4, 5)),
    row(aten.matmul.default, x(2, 3, 4), constant(4, 5)),
    row(aten.matmul.default, x(3, 4), constant(4)),
    row(aten.matmul.default, x(4), constant(4, 5)),
    row(aten.mv.default, x(4), constant(4)),
    row(aten.dot.default, fixed(4), constant(4)),
    row(aten.vdot.default, fixed(4), constant(4)),
    row(aten.addmm.default, constant(5), x(4), constant(4, 5), beta=0.5, alpha=2.0),
    row(aten.baddbmm.default, x(3, 5), x(3, 4), x(4, 5), beta=0.5, alpha=2.0),
    row(aten.baddbmm.default, x(3, 5), x(3, 4), x(4, 5), beta=0),
    row(aten.tensordot.default, x(3, 4), constant(4, 3, 2), [1, 2], [1, 0]),
    row(aten.linalg_vecdot.default, x(3, 4), x(3, 4)),
]

CONVOLUTION = [
    row(aten.convolution.default, x(4, 9), constant(6, 2, 3), constant(6), [2], [1], [2], False, [0], 2),
    row(aten.convolution.default, x(4, 9, 8), constant(6, 4, 3, 3), None, [2, 1], [1, 0], [1, 1], False, [0, 0], 1),
    row(
        aten.convolution.default,
        x(2, 5, 6, 7),
        constant(3, 2, 3, 2, 1),
        None,
        [1] * 3,
        [1, 0, 0],
        [1] * 3,
        False,
        [0] * 3,
        1,
    ),
    row(aten.convolution.default, x(4, 9), constant(4, 3, 3), constant(6), [2], [1], [1], True, [1], 2),
    row(aten.convolution.default, x(4, 5, 6), constant(4, 3, 3, 3), None, [2, 3], [1, 0], [1, 2], True, [1, 2], 1),
    row(
        aten.convolution.default,
        x(2, 3, 4, 3),
        constant(2, 3, 2, 2, 2),
        None,
        [2] * 3,
        [0] * 3,
        [1] * 3,
        True,
        [1] * 3,
        1,
    ),
    row(
        aten.convolution.default,
        x(4, 9, 9),
        constant(4, 1, 3, 3),
        constant(4),
        [2, 2],
        [1, 1],
        [1, 1],
        False,
        [0, 0],
        4,
    ),
]

POOLING = [
    row(aten.max_pool1d.default, x(3, 9), [3], [2], [1], [1], True),
    row(aten.max_pool2d.default, x(3, 9, 10), [3, 3], [2, 2], [1, 1]),
    row(aten.max_pool2d.default, x(3, 8, 8), [3, 3], [2, 2], [0, 0], [1, 1], True),
    row(aten.max_pool2d.default, x(3, 8, 7), [2, 3], [3, 3], [1, 1], [1, 2], True),
    row(aten.max_pool2d.default, x(3, 8, 8), [2, 2]),
    row(aten.max_pool2d_with_indices.default, fixed(3, 8, 8), [2, 2]),
    row(aten._adaptive_avg_pool2d.default, fixed(3, 8, 8), [2, 2]),
    row(aten.max_pool3d.default, x(3, 6, 7, 8), [2], [2], [1], [1], True),
    row(aten.max_pool1d_with_indices.default, x(3, 9), [3], outputs=(0,)),
    row(aten.max_pool2d_with_indices.default, x(3, 9, 9), [3, 3], [2, 2], [1, 1]),
    row(aten.max_pool2d_with_indices.default, x(3, 9, 9), [3, 3], [2, 2], [1, 1], outputs=(0,)),
    row(aten.max_pool3d_with_indices.default, x(3, 5, 5, 5), [2]),
    row(aten.avg_pool1d.default, x(3, 9), [3], [2], [1], True),
    *(
        row(aten.avg_pool2d.default, x(3, 9, 8), [3, 2], [2, 3], [1, 1], ceil, include, divisor)
        for ceil in (False, True)
        for include in (False, True)
        for divisor in (None, 5)
    ),
    row(aten.avg_pool2d.default, x(3, 8, 8), [2, 2]),
    row(aten.avg_pool3d.default, x(3, 6, 7, 8), [2], [2], [1], True, False),
    row(aten.adaptive_avg_pool1d.default, x(3, 9), [4]),
    row(aten.adaptive_avg_pool2d.default, x(3, 9, 8), [1, 1]),
    row(aten.adaptive_avg_pool2d.default, x(3, 9, 8), [3, 4]),
    row(aten.adaptive_avg_pool2d.default, x(3, 9, 8), [9, 8]),
    row(aten.adaptive_avg_pool2d.default, x(3, 9, 8), [7, 5]),
    row(aten._adaptive_avg_pool2d.default, x(3, 3, 3), [7, 7]),
    row(aten.adaptive_avg_pool3d.default, x(3, 5, 6, 7), [2, 3, 4]),
    row(aten._adaptive_avg_pool3d.default, x(3, 5, 6, 7), [2, 3, 4]),
    row(aten.adaptive_max_pool1d.default, x(3, 9), [4], outputs=(0,)),
    row(aten.adaptive_max_pool2d.default, x(3, 9, 8), [3, 4], outputs=(0,)),
    row(aten.adaptive_max_pool2d.default, x(3, 9, 8), [7, 5], outputs=(0,)),
    row(aten.adaptive_max_pool3d.default, x(3, 5, 6, 7), [2, 3, 4], outputs=(0,)),
]

SHAPE = [
    *(row(getattr(aten, n).default, x(4, 6), [B, 2, 12]) for n in each("reshape _reshape_copy view_copy")),
    row(aten.reshape.default, x(4, 6), [Batch(4), 6]),
    row(aten.reshape.default, x(4, 6), [-1]),
    row(aten.reshape.default, x(4, 6), [4, -1], captured=False),
    row(aten.reshape.default, x(4, 6), [4, B, 6], captured=False),
    row(aten._reshape_alias.default, x(4, 6), [B, 24], [24, 1]),
    row(aten.expand.default, x(1, 6), [-1, 4, 6]),
    row(aten.expand.default, constant(1, 4), [B, 4]),
    row(aten.expand.default, x(6), [3, B, 6]),
    row(aten.expand_copy.default, x(1, 6), [B, 4, 6]),
    row(aten.permute.default, x(4, 6), [0, -1, 1]),
    row(aten.permute_copy.default, x(4, 6), [2, 0, 1]),
    *(row(getattr(aten, n).int, x(4, 6), 1, -1) for n in each("transpose transpose_copy")),
    row(aten.transpose.int, x(4, 6), 0, 2),
    *(row(getattr(aten, n).default, x(4)) for n in each("t t_copy")),
    row(aten.t.default, x()),
    row(aten.squeeze.default, x(1, 6, 1)),
    row(aten.squeeze.dim, x(1, 6, 1), 1),
    row(aten.squeeze.dim, x(1, 6, 1), 2),
    row(aten.squeeze.dims, x(1, 6, 1), [1, -1]),
    row(aten.squeeze_copy.dim, x(1, 6), 1),
    row(aten.unsqueeze.default, x(6), -1),
    row(aten.unsqueeze_copy.default, x(6), 0),
    row(aten.repeat.default, x(2, 3), [1, 2, 3]),
    row(aten.repeat.default, x(3), [2, 1, 3]),
    row(aten.repeat.default, constant(1, 3), [B, 1]),
    row(aten.tile.default, x(2, 3), [2]),
    row(aten.repeat_interleave.self_int, x(2, 3), 2, 1),
    row(aten.repeat_interleave.self_int, x(2, 3), 3),
    row(aten.pixel_shuffle.default, x(8, 3, 4), 2),
    row(aten.pixel_shuffle.default, x(2, 8, 3, 4), 2),
    row(aten.pixel_unshuffle.default, x(2, 6, 4), 2),
    row(aten.channel_shuffle.default, x(6, 3, 4), 3),
    row(aten.native_channel_shuffle.default, fixed(2, 6, 3, 4), 2),
]

SLICING = [
    row(aten.slice.Tensor, x(6, 4), 1, 1, -1),
    row(aten.slice.Tensor, x(6, 4), 1, -3),
    row(aten.slice.Tensor, x(6, 4), 1, 1, 9223372036854775807, 2),
    row(aten.slice.Tensor, x(6, 4), 2, 0, 9),
    row(aten.slice_copy.Tensor, x(6, 4), 1, 2, 4),
    row(aten.narrow_copy.default, x(6, 4), 1, 2, 3),
    row(aten.narrow_copy.default, x(6, 4), 1, -3, 2),
    row(aten.select.int, x(6, 4), 1, -2),
    row(aten.select.int, x(6, 4), 0, 1),
    row(aten.select_copy.int, x(6, 4), 2, 1),
    row(aten.unbind.int, x(3, 4), 1),
    row(aten.unbind.int, fixed(3, 4)),
    row(aten.split.Tensor, x(7, 2), 3, 1),
    row(aten.split_with_sizes.default, x(7, 2), [3, 4], 1),
    row(aten.split_with_sizes.default, x(7, 2), [3, 4], 1, outputs=(1,)),
    row(aten.split.Tensor, x(7, 2), 7, 1),
    row(aten.flip.default, x(3, 4), [1, -1]),
    row(aten.flip.default, constant(2, 3), [0]),
    row(aten.roll.default, x(5, 4), [2, -1], [1, 2]),
    row(aten.roll.default, fixed(5, 4), [3]),
    row(aten.rot90.default, x(3, 4), 1, [1, 2]),
    row(aten.rot90.default, x(3, 4), 2, [1, 2]),
    row(aten.rot90.default, x(3, 4), 3, [1, 2]),
    row(aten.rot90.default, x(3, 4), 4, [1, 2]),
    row(aten.constant_pad_nd.default, x(3, 4, 5), [1, 2, 0, 3], 1.5),
    row(aten.constant_pad_nd.default, x(3, 4, 5), [-1, 2, 1, -2]),
    row(aten.constant_pad_nd.default, x(3, 4, 5), [-1, -1]),
    row(aten.constant_pad_nd.default, x(3, 4, 5), [1, 2], -2.0),
    *(row(aten.pad.default, x(3, 4, 5), [1, 2, 3, 0], mode) for mode in ("reflect", "replicate", "circular")),
    *(row(getattr(aten, f"{name}_pad1d").default, x(3, 5), [1, 2]) for name in ("reflection", "replication")),
    *(row(getattr(aten, f"{name}_pad2d").default, x(3, 4, 5), [1, 2, 3, 0]) for name in ("reflection", "replication")),
    *(
        row(getattr(aten, f"{name}_pad3d").default, x(3, 4, 4, 4), [1, 2, 0, 1, 2, 2])
        for name in ("reflection", "replication")
    ),
    row(aten.tril.default, x(4, 5), 1),
    row(aten.triu.default, x(4, 5), -1),
    row(aten.diagonal.default, x(4, 5), 1, 1, 2),
    row(aten.diagonal.default, x(4, 5), -2, 2, 1),
    row(aten.unfold.default, x(9, 2), 1, 3, 2),
    row(aten.im2col.default, x(2, 6, 4), [3, 2], [1, 1], [0, 0], [3, 2]),
    row(aten.im2col.default, x(2, 7, 5), [2, 2], [1, 1], [1, 0], [2, 2]),
    row(aten.im2col.default, x(2, 9, 8), [5, 4], [1, 1], [2, 1], [2, 1]),
    row(aten.im2col.default, x(2, 9, 8), [3, 3], [1, 1], [1, 1], [2, 2]),
    row(aten.col2im.default, x(8, 9), [7, 8], [2, 2], [1, 1], [0, 1], [2, 3]),
    row(aten.col2im.default, x(12, 4), [6, 4], [3, 2], [1, 1], [0, 0], [3, 2]),
    row(aten.col2im.default, x(12, 4), [7, 5], [3, 2], [1, 1], [0, 0], [3, 2]),
    row(aten.col2im.default, x(18, 16), [7, 8], [3, 3], [1, 1], [1, 1], [2, 2]),
    row(aten.col2im.default, x(2, 16), [7, 7], [1, 1], [1, 1], [0, 0], [2, 2]),
    row(aten.col2im.default, x(4, 15), [9, 11], [1, 2], [1, 4], [0, 0], [2, 3]),
    row(aten.im2col.default, x(3, 7, 8), [3, 2], [1, 2], [1, 0], [2, 1]),
    row(aten.col2im.default, x(18, 36), [7, 9], [3, 2], [1, 2], [1, 1], [2, 1]),
    row(aten.col2im.default, x(12, 16), [8, 8], [2, 2], [1, 1], [0, 0], [2, 2]),
    row(aten.col2im.default, x(18, 16), [8, 8], [3, 3], [1, 1], [1, 1], [2, 2]),
    row(aten.col2im.default, x(18, 9), [8, 8], [3, 3], [1, 1], [0, 0], [2, 2]),
    row(aten.one_hot.default, integers(5, 3), 5),
]

JOINING = [
    row(aten.cat.default, [x(2, 3), x(4, 3)], 1),
    row(aten.cat.default, [x(2), integers(3, 2)], -1),
    row(aten.concat.default, [x(2), x(3)], 1),
    row(aten.cat.default, [x(2)], 1),
    row(aten.stack.default, [x(2), x(2)], -1),
    row(aten.stack.default, [x(2), x(2)]),
    row(aten.meshgrid.default, [fixed(3), constant(4)]),
    row(aten.meshgrid.indexing, [fixed(3), constant(4)], indexing="xy"),
    row(aten.broadcast_tensors.default, [x(1, 3), constant(4, 1)]),
    row(aten.slice_scatter.default, x(6, 3), x(2, 3), 1, 1, 3),
    row(aten.slice_scatter.default, x(6, 3), x(5, 3), 1, 1),
    row(aten.slice_scatter.default, x(6, 3), x(2, 3), -2, -2),
    row(aten.select_scatter.default, x(6, 3), x(6), 2, -1),
]

INDEXING = [
    row(aten.index_select.default, x(5, 3), 1, torch.tensor([4, 0, 0])),
    row(aten.index_select.default, x(5, 3), 1, torch.tensor(4)),
    row(aten.embedding.default, constant(7, 3), integers(7, 4)),
    row(aten.gather.default, x(5, 3), 1, integers(5, 2, 3)),
    row(aten.take_along_dim.default, fixed(2, 5, 3), whole(5, 2, 2, 1), 1),
    row(aten.take_along_dim.default, fixed(5, 3), whole(15, 4)),
    row(aten.index.Tensor, constant(5, 3), [integers(5, 2)]),
    row(aten.index.Tensor, x(5, 3), [None, torch.tensor([[4, -1], [0, 2]])]),
    row(aten.index.Tensor, x(5, 4, 3), [None, torch.tensor([4, -1]), torch.tensor([-4, 2])]),
    row(aten.index.Tensor, x(5, 4, 3), [None, torch.tensor([4, 1]), None, torch.tensor([0, 2])]),
    row(aten.index.Tensor, x(5, 4, 3), [None, torch.tensor([[4], [1]]), torch.tensor([0, 2, 3])]),
    row(aten.index.Tensor, constant(5, 4, 3), [None, integers(4, 2), integers(3, 2)]),
    row(aten.index.Tensor, constant(5, 4), [integers(5, low=-5), integers(4, low=-4)]),
    row(aten.index.Tensor, x(5, 3), [None, torch.tensor([True, False, True, True, False])], captured=False),
    row(aten._unsafe_index.Tensor, x(5, 3), [None, None, torch.tensor([2, 0])]),
    row(aten.topk.default, x(9), 3),
    row(aten.topk.default, x(9, 2), 3, 1, False),
    row(aten.sort.default, x(9)),
    row(aten.sort.default, x(9), 1, True),
    row(aten.sort.stable, integers(3, 20), stable=True, dim=1, descending=True),
    row(aten.argsort.default, x(9)),
]

CREATION = [
    row(aten.full.default, [3, 4], 2.5),
    row(aten.full.default, [B, 4], 2.5),
    row(aten.full.default, [], 2),
    row(aten.full_like.default, x(3), 2),
    row(aten.full_like.default, x(3), 2, dtype=torch.int64),
    row(aten.fill.Tensor, x(3), torch.tensor(3.0)),
    row(aten.full.default, [4, B], 1, dtype=torch.int64),
    row(aten.zeros.default, [3]),
    row(aten.ones.default, [3], dtype=torch.bool),
    *(row(getattr(aten, f"{name}_like").default, x(3)) for name in ("zeros", "ones")),
    row(aten.zeros.default, [4, B]),
    row(aten.scalar_tensor.default, 3.5),
    row(aten.scalar_tensor.default, 3, dtype=torch.int64),
    row(aten.arange.default, 5),
    row(aten.arange.start, 2, 5, dtype=torch.float32),
    row(aten.arange.start_step, 2, 9, 3),
    row(aten.linspace.default, -1, 1, 7),
    row(aten.eye.default, 3),
    row(aten.eye.m, 3, 4),
]

REDUCTION = [
    *(row(getattr(aten, name).default, x(4, 5)) for name in each("sum mean max min")),
    row(aten.prod.default, fixed(2, 3)),
    row(aten.prod.dim_int, x(4, 5), 1, True),
    row(aten.sum.dim_IntList, x(4, 5), [1, -1]),
    row(aten.sum.dim_IntList, x(4, 5), None, True),
    row(aten.sum.dim_IntList, x(4, 5), [0]),
    row(aten.sum.dim_IntList, bools(4), [1]),
    row(aten.mean.dim, x(4, 5), [1], True),
    row(aten.mean.dim, bools(4), [1], dtype=torch.float32),
    row(aten.amax.default, x(4, 5), [1, 2], True),
    row(aten.amin.default, x(4, 5), [-1]),
    row(aten.amax.default, x(4, 5)),
    row(aten.max.dim, x(4, 5), 1),
    row(aten.min.dim, x(4, 5), -1, True),
    row(aten.max.dim, integers(3, 9), 1),
    row(aten.argmax.default, x(4, 5), 1),
    row(aten.argmax.default, x(4, 5)),
    row(aten.argmin.default, x(4, 5), -1, True),
    row(aten.argmax.default, fixed(4), None, True),
    row(aten.logsumexp.default, x(4, 5), [1, 2]),
    row(aten.logsumexp.default, ranged(200, 300, 5), [1], True),
    row(aten.any.default, bools(4)),
    row(aten.any.dim, bools(4, 2), 1),
    row(aten.any.dims, x(4, 2), [1, 2], True),
    row(aten.all.default, bools(4)),
    row(aten.all.dim, bools(4, 2), 1),
    row(aten.all.dims, bools(1, 2), [1, 2]),
    row(aten.var.correction, x(4, 5), [1, 2], correction=1),
    row(aten.var.correction, x(4, 5), [-1], correction=0, keepdim=True),
    row(aten.var.correction, x(4, 5), [1]),
    row(aten.var.default, fixed(4, 5)),
    row(aten.std.correction, x(4, 5), [1]),
    row(aten.std.correction, x(4, 5), [1], correction=0),
    row(aten.std.default, fixed(4, 5)),
    row(aten.var_mean.correction, x(4, 5), [1, 2], correction=0, keepdim=True),
    row(aten.var_mean.correction, x(4, 5), [1]),
    row(aten.std_mean.correction, x(4, 5), [1, 2], correction=1),
    row(aten.std_mean.dim, x(4, 5), [1]),
    *(row(aten.linalg_vector_norm.default, x(4, 5), p, [1]) for p in (2, 1, 3, INF, -INF, 0)),
    row(aten.linalg_vector_norm.default, x(4, 5)),
    row(aten.norm.Scalar, x(4, 5), 2),
    row(aten.norm.ScalarOpt_dim, x(4, 5), 2, [1], True),
    row(aten.cumsum.default, x(4, 5), -1),
    row(aten.cumsum.default, bools(4), 1),
    row(aten.count_nonzero.default, x(4)),
    row(aten.count_nonzero.dim_IntList, x(4, 2), [1]),
]

_STATISTICS = (constant(4), constant(4), constant(4), positive(4))

NORMALIZATION = [
    row(aten._native_batch_norm_legit_no_training.default, x(4, 3, 3), *_STATISTICS, 0.1, 1e-5, outputs=(0,)),
    row(
        aten._native_batch_norm_legit_no_training.default,
        x(4),
        None,
        None,
        constant(4),
        positive(4),
        0.1,
        1e-3,
        outputs=(0,),
    ),
    row(aten._native_batch_norm_legit_no_training.default, x(4, 3), *_STATISTICS, 0.1, 1e-5, outputs=(0,)),
    row(aten._native_batch_norm_legit.no_stats, x(4, 3), constant(4), constant(4), True, 0.1, 1e-5),
    row(aten._native_batch_norm_legit.no_stats, x(4), constant(4), None, True, 0.1, 1e-3),
    row(aten.native_layer_norm.default, x(3, 4), [4], constant(4), constant(4), 1e-5),
    row(aten.native_layer_norm.default, x(3, 4), [3, 4], None, None, 1e-3),
    row(aten.native_layer_norm.default, x(3, 4), [4], constant(4), None, 1e-5),
    row(
        aten.native_layer_norm.default,
        Input((3, 4), lambda size: torch.randn(size).double()),
        [4],
        None,
        None,
        1e-5,
        tol=1e-12,
    ),
    row(aten.group_norm.default, x(6, 3, 4), 2, constant(6), constant(6)),
    row(aten.group_norm.default, x(6, 3), 3),
    row(aten.native_group_norm.default, x(6, 3, 4), constant(6), constant(6), B, 6, 12, 2, 1e-5),
    row(aten.group_norm.default, x(4, 3, 3), 4, constant(4), constant(4)),
    row(aten.rms_norm.default, x(3, 4), [4], constant(4)),
    row(aten.rms_norm.default, x(3, 4), [3, 4], None, 1e-3),
    row(aten._fused_rms_norm.default, x(3, 4), [4], constant(4), 1e-5),
]

_PLANE = x(3, 5, 4)

RESIZE = [
    row(aten.upsample_nearest1d.default, x(3, 5), [7]),
    row(aten.upsample_nearest1d.vec, x(3, 5), None, [2.0]),
    row(aten.upsample_nearest2d.default, _PLANE, [10, 8]),
    row(aten.upsample_nearest2d.vec, _PLANE, [7, 3], None),
    row(aten.upsample_nearest2d.vec, _PLANE, None, [1.7, 2.3]),
    row(aten.upsample_nearest2d.vec, _PLANE, None, [3.1, 2.9]),
    row(aten.upsample_nearest2d.vec, _PLANE, None, [2.05, 1.05]),
    row(aten.upsample_nearest1d.vec, x(3, 5), None, [3.1]),
    # Places that float32 rounds in another way than float64 does, or than whole blocks are.
    row(aten.upsample_nearest1d.vec, x(3, 26), [22], None),
    row(aten.upsample_nearest1d.vec, x(3, 5), None, [41.0]),
    row(aten._upsample_nearest_exact1d.vec, x(3, 16), None, [2.3]),
    row(aten.upsample_nearest3d.default, x(3, 5, 4, 3), [10, 4, 6]),
    row(aten.upsample_nearest3d.vec, x(3, 5, 4, 3), None, [2.0, 1.5, 1.0]),
    row(aten._upsample_nearest_exact1d.default, x(3, 5), [7]),
    row(aten._upsample_nearest_exact1d.vec, x(3, 5), [8], None),
    row(aten._upsample_nearest_exact2d.default, _PLANE, [10, 8]),
    row(aten._upsample_nearest_exact2d.vec, _PLANE, [7, 3], None),
    row(aten._upsample_nearest_exact3d.default, x(3, 5, 4, 3), [10, 3, 4]),
    row(aten._upsample_nearest_exact3d.vec, x(3, 5, 4, 3), [7, 4, 2], None),
    row(aten.upsample_linear1d.default, x(3, 5), [7], False),
    row(aten.upsample_linear1d.vec, x(3, 5), [7], True, None),
    row(aten.upsample_trilinear3d.default, x(3, 5, 4, 3), [7, 8, 2], False),
    row(aten.upsample_trilinear3d.vec, x(3, 5, 4, 3), [7, 8, 2], True, None),
    row(aten.upsample_bilinear2d.vec, _PLANE, [7, 9], True, None),
    row(aten.upsample_bilinear2d.vec, _PLANE, None, False, [1.7, 2.3]),
    row(aten.upsample_bicubic2d.vec, _PLANE, [7, 9], False, None),
    row(aten.upsample_bicubic2d.vec, _PLANE, None, False, [1.7, 2.3]),
    row(aten._upsample_bilinear2d_aa.default, _PLANE, [3, 9], False),
    row(aten._upsample_bilinear2d_aa.vec, _PLANE, [3, 2], True, None),
    row(aten._upsample_bicubic2d_aa.default, _PLANE, [3, 9], False),
    row(aten._upsample_bicubic2d_aa.vec, _PLANE, [3, 2], False, None),
    *(row(aten.grid_sampler_2d.default, _PLANE, ranged(-1.2, 1.2, 3, 3, 2), mode, 0, False) for mode in (0, 1, 2)),
    *(row(aten.grid_sampler.default, _PLANE, ranged(-1.2, 1.2, 3, 3, 2), 0, pad, True) for pad in (0, 1, 2)),
]

UNINITIALISED = [
    row(aten.empty.memory_format, [B, 3]),
    row(aten.empty_like.default, x(3), dtype=torch.int64),
    row(aten.new_empty.default, x(3), [4, B]),
]
"""Operators whose result is whatever memory held: their numbers cannot be compared."""

ROWS: list[Row] = [
    *UNARY,
    *IDENTITY,
    *BINARY,
    *COMPARISON,
    *ACTIVATION,
    *LINEAR,
    *CONVOLUTION,
    *POOLING,
    *SHAPE,
    *SLICING,
    *JOINING,
    *INDEXING,
    *CREATION,
    *REDUCTION,
    *NORMALIZATION,
    *RESIZE,
]
