"""Rows of operators that compute one element at a time: functions, arithmetic, comparisons, activations."""

from __future__ import annotations

import math

import torch

from tests.export.onnx.one_node import Input, aten, bools, constant, each, integers, ranged, row, x

INF = math.inf


def given(*numbers: float) -> Input:
    """float32 [batch, numbers]: the same ones in every sample."""
    return Input((len(numbers),), lambda size: torch.tensor(numbers).expand(size).clone())


_SMOOTH = each("neg abs exp erf sigmoid tanh sin cos atan sinh cosh asinh sign floor ceil round trunc frac")
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
    row(aten.erfinv.default, ranged(-0.9999, 0.9999, 200)),
    row(aten.erfinv.default, given(-1.0, 0.0, 1.0)),
    row(aten.special_ndtri.default, ranged(1e-6, 0.9999, 200)),
    row(aten.special_ndtri.default, given(0.0, 1e-36, 1e-30, 1e-20, 1e-14, 1e-9, 0.9e-6, 1.1e-6, 0.5, 0.9999999, 1.0)),
    *(row(getattr(aten, name).default, ranged(0.05, 12.0, 200)) for name in each("lgamma digamma")),
    *(row(getattr(aten, name).default, ranged(-2.9, -2.1, 50)) for name in each("lgamma digamma")),
    row(aten.lgamma.default, ranged(10.0, 1e6, 50)),
    row(aten.lgamma.default, given(INF, -INF, 1e-20, 0.0, -1.0)),
    row(aten.digamma.default, ranged(10.0, 1e6, 50)),
    *(row(aten.polygamma.default, 1, ranged(*at, 50)) for at in ((0.05, 12.0), (-1.9, -1.1), (10.0, 1e5))),
    row(aten.polygamma.default, 0, ranged(0.05, 12.0, 50)),
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
    *(row(getattr(aten, name).Tensor, x(5), ranged(0.5, 2, 5)) for name in each("mul div")),
    *(row(getattr(aten, name).Tensor, x(5), x(5), alpha=0.5) for name in each("add sub rsub")),
    *(row(getattr(aten, name).Tensor, integers(9, 5), x(5)) for name in each("add sub mul")),
    *(row(getattr(aten, name).Tensor, x(5), 1.7) for name in each("mul div add sub")),
    *(row(getattr(aten, name).Tensor, integers(9, 5), 1.7) for name in each("mul add sub")),
    row(aten.rsub.Scalar, x(5), 1.7),
    row(aten.rsub.Scalar, integers(9, 5), 1.7),
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
    row(aten.clamp.Tensor, x(5), x(5), constant(5)),
    row(aten.clamp.default, x(5), 0.1),
    row(aten.clamp.default, integers(9, 5, low=-9), 0),
    row(aten.clamp.Tensor, x(5), x(5)),
    row(aten.clamp.Tensor, x(5), None, x(5)),
    row(aten.addcmul.default, x(5), x(5), x(5), value=0.3),
    row(aten.addcdiv.default, x(5), x(5), ranged(1, 2, 5), value=0.3),
    row(aten.xlogy.Tensor, x(5), ranged(0.1, 2, 5)),
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
]
