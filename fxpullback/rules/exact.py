"""Nonlinear operators that are not gates: `SEMANTIC` keeps their exact derivative, and the ledger says so."""

from __future__ import annotations

from typing import Any

from fxpullback.graph.ir import aten

_SMOOTH = "a smooth function that selects nothing: no gate reading"
_SIZE = "a measure of size that selects nothing: no gate reading"
_SOFTMAX = "a softmax that feeds no matrix product or gated product"
_SORT = "passes values on by an order held constant"

_REST = "what is left of whole steps: passes values on, the number of steps held constant"
_SMOOTH_NAMES = "tan asin acos sinh cosh asinh acosh atanh hypot erfc exp2 log10 sinc logit addcdiv nan_to_num"

KEPT_EXACT: dict[Any, str] = {
    aten.softmax.int: _SOFTMAX,
    aten.log_softmax.int: _SOFTMAX,
    aten.logsumexp.default: _SMOOTH,
    aten.exp.default: _SMOOTH,
    aten.expm1.default: _SMOOTH,
    aten.log.default: _SMOOTH,
    aten.log1p.default: _SMOOTH,
    aten.log2.default: _SMOOTH,
    aten.sin.default: _SMOOTH,
    aten.cos.default: _SMOOTH,
    aten.atan2.default: _SMOOTH,
    aten.pow.Tensor_Scalar: _SMOOTH,
    aten.pow.Tensor_Tensor: _SMOOTH,
    aten.pow.Scalar: _SMOOTH,
    aten.xlogy.Tensor: _SMOOTH,
    **{getattr(aten, name).default: _SMOOTH for name in _SMOOTH_NAMES.split()},
    aten.frac.default: _REST,
    aten.remainder.Tensor: _REST,
    aten.remainder.Scalar: _REST,
    aten.fmod.Tensor: _REST,
    aten.fmod.Scalar: _REST,
    aten.square.default: _SMOOTH,
    aten.sqrt.default: _SMOOTH,
    aten.rsqrt.default: _SMOOTH,
    aten.reciprocal.default: _SMOOTH,
    aten.div.Tensor: "a quotient by what depends on the picture, no statistic",
    aten.abs.default: _SIZE,
    aten.linalg_vector_norm.default: _SIZE,
    aten.var.correction: _SIZE,
    aten.var_mean.correction: _SIZE,
    aten.std.correction: _SIZE,
    aten.prod.dim_int: _SMOOTH,
    aten.sort.default: _SORT,
    aten.sort.stable: _SORT,
    aten.topk.default: _SORT,
    aten.max.dim: _SORT,
    aten.min.dim: _SORT,
    aten.amin.default: "the smallest value: no gate of the method",
    aten.minimum.default: "the smaller of two values: no gate of the method",
}
