"""The operators that the patterns tell apart: by their traits; by name where a pattern has a vocabulary of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fxpullback.graph.ir import aten
from fxpullback.graph.operators import OPERATORS, Trait

Operators = frozenset[Callable[..., Any]]
_having = OPERATORS.having

# What a value is followed through: its numbers are moved, repeated, left out in part, padded or cast.
RELAYOUT: Operators = (
    _having(Trait.LAYOUT) | _having(Trait.PART) | _having(Trait.CAST) | (_having(Trait.MOVES) & _having(Trait.FILLS))
)
SCALING: Operators = _having(Trait.SCALING)
SHIFTING: Operators = _having(Trait.SHIFTING)
AFFINE: Operators = RELAYOUT | SCALING | SHIFTING

# Attention: what mixes the heads of the weights, and what masks the scores.
MIXING: Operators = frozenset({aten.linear.default, aten.convolution.default, aten.native_layer_norm.default})
MASKING: Operators = _having(Trait.CHOICE)
# Products of matrices that no pattern takes apart, with the positions of their factors.
OTHER_MATRIX_PRODUCTS: dict[Any, tuple[int, int]] = {
    aten.linear.default: (0, 1),
    aten.convolution.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten.baddbmm.default: (1, 2),
}

# Computed gates: what bounds one, and the pointwise functions that a gate z g(z) is made of.
BOUNDED: Operators = _having(Trait.GATE)
SELECTORS: Operators = _having(Trait.SELECTOR)
POINTWISE: Operators = (
    SELECTORS
    | SCALING
    | SHIFTING
    | {aten.softplus.default, aten.exp.default, aten.log1p.default}
    | {aten.pow.Tensor_Scalar, aten.square.default, aten._to_copy.default}
)

# Statistics: where a search for one ends, what takes the root, and what may lie between.
STATISTICS: Operators = _having(Trait.STATISTIC)
ROOTS: Operators = _having(Trait.ROOT)
MEANS: Operators = frozenset({aten.mean.dim, aten.sum.dim_IntList})
STATISTIC_STEPS: Operators = (
    AFFINE
    | ROOTS
    | {aten.reciprocal.default, aten.clamp.default, aten.pow.Tensor_Scalar, aten.relu.default}
    | {aten.mean.dim, aten.maximum.default}
)

# Choices by comparison; those that begin with their condition.
ABOVE: Operators = _having(Trait.ABOVE)
BELOW: Operators = _having(Trait.BELOW)
CHOICES: Operators = frozenset(op for op in _having(Trait.CHOICE) if op._schema.arguments[0].name == "condition")
ZEROS: Operators = _having(Trait.ZEROS)
