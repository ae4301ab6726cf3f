"""The operators that the patterns tell apart, as sets of operator objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fxpullback.graph.ir import GETITEM, aten

Operators = frozenset[Callable[..., Any]]

# Every value that goes in comes out, moved, repeated, left out or cast: what a value is followed through.
RELAYOUT: Operators = frozenset(
    {
        aten.reshape.default,
        aten.permute.default,
        aten.transpose.int,
        aten.t.default,
        aten.expand.default,
        aten.expand_as.default,
        aten.unsqueeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.squeeze.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.split.Tensor,
        aten.split_with_sizes.default,
        aten.unbind.int,
        aten.unflatten.int,
        aten._to_copy.default,
        aten.clone.default,
        aten.repeat.default,
        aten.view_as.default,
        aten.constant_pad_nd.default,
        GETITEM,
    }
)
SCALING: Operators = frozenset({aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar, aten.neg.default})
SHIFTING: Operators = frozenset({aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar, aten.rsub.Scalar})
AFFINE: Operators = RELAYOUT | SCALING | SHIFTING

# Attention: what mixes the heads of the weights, and what masks the scores.
MIXING: Operators = frozenset({aten.linear.default, aten.convolution.default, aten.native_layer_norm.default})
MASKING: Operators = frozenset({aten.masked_fill.Scalar, aten.where.self})
# Products of matrices that no pattern takes apart, with the positions of their factors.
OTHER_MATRIX_PRODUCTS: dict[Any, tuple[int, int]] = {
    aten.linear.default: (0, 1),
    aten.convolution.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten.baddbmm.default: (1, 2),
}

# Computed gates: what bounds one, and the pointwise functions that a gate z g(z) is made of.
BOUNDED: Operators = frozenset({aten.sigmoid.default, aten.hardsigmoid.default, aten.tanh.default, aten.softmax.int})
SELECTORS: Operators = (BOUNDED - {aten.softmax.int}) | {
    aten.hardtanh.default,
    aten.erf.default,
    aten.special_ndtr.default,
}
POINTWISE: Operators = (
    SELECTORS
    | SCALING
    | SHIFTING
    | {aten.softplus.default, aten.exp.default, aten.log1p.default}
    | {aten.pow.Tensor_Scalar, aten.square.default, aten._to_copy.default}
)

# Statistics: where a search for one ends, what takes the root, and what may lie between.
STATISTICS: Operators = frozenset(
    {
        aten.linalg_vector_norm.default,
        aten.norm.ScalarOpt_dim,
        aten.var.correction,
        aten.var.dim,
        aten.std.correction,
        aten.std.dim,
        aten.var_mean.correction,
    }
)
ROOTS: Operators = frozenset(
    {
        aten.rsqrt.default,
        aten.sqrt.default,
        aten.linalg_vector_norm.default,
        aten.norm.ScalarOpt_dim,
        aten.std.correction,
        aten.std.dim,
    }
)
MEANS: Operators = frozenset({aten.mean.dim, aten.sum.dim_IntList})
STATISTIC_STEPS: Operators = (
    AFFINE
    | ROOTS
    | {aten.reciprocal.default, aten.clamp_min.default, aten.clamp.default, aten.pow.Tensor_Scalar, aten.relu.default}
    | {aten.mean.dim, aten.maximum.default}
)

# Choices by comparison.
ABOVE: Operators = frozenset({aten.gt.Scalar, aten.ge.Scalar})
BELOW: Operators = frozenset({aten.lt.Scalar, aten.le.Scalar})
CHOICES: Operators = frozenset({aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther})
ZEROS: Operators = frozenset({aten.zeros_like.default, aten.zeros.default})
