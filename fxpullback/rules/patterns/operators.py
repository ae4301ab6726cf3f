"""The operators that the patterns tell apart: by their traits; by name where a pattern has a vocabulary of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fxpullback.graph.ir import aten
from fxpullback.graph.operators import OPERATORS, OperatorTable, Trait

Operators = frozenset[Callable[..., Any]]

# Attention: what mixes the heads of the weights.
MIXING: Operators = frozenset({aten.linear.default, aten.convolution.default, aten.native_layer_norm.default})
# Products of matrices that no pattern takes apart, with the positions of their factors.
OTHER_MATRIX_PRODUCTS: dict[Any, tuple[int, int]] = {
    aten.linear.default: (0, 1),
    aten.convolution.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten.baddbmm.default: (1, 2),
}
# Statistics: the means and sums that one may be made of.
MEANS: Operators = frozenset({aten.mean.dim, aten.sum.dim_IntList})


@dataclass(frozen=True)
class Vocabulary:
    """Sets of operators, as the traits of one compilation have them; patterns ask `flow.known` for them.

    Attributes:
        relayout: what a value is followed through: its numbers are moved, repeated, left out in part, padded or cast.
        scaling: products and quotients, which scale a value where the other factor is constant.
        shifting: sums and differences, which shift it.
        affine: all of these three.
        weight_steps: what the weights of an attention stay weights through: re-laid, scaled, or their heads mixed.
        masking: what masks the scores of an attention.
        bounded: operators whose output gates a product.
        selectors: bounded pointwise functions that make a gate of z g(z).
        pointwise: pointwise functions that such a g is made of.
        statistics: where a search for a statistic ends.
        roots: what takes the root of one.
        statistic_steps: what may lie between.
        above, below: comparisons that hold for large values, and for small ones.
        choices: choices by a condition that is their first argument.
        zeros: operators that give zeros.
    """

    relayout: Operators
    scaling: Operators
    shifting: Operators
    affine: Operators
    weight_steps: Operators
    masking: Operators
    bounded: Operators
    selectors: Operators
    pointwise: Operators
    statistics: Operators
    roots: Operators
    statistic_steps: Operators
    above: Operators
    below: Operators
    choices: Operators
    zeros: Operators

    @classmethod
    def of(cls, table: OperatorTable) -> Vocabulary:
        """The sets by the traits of a table."""
        having = table.having
        relayout = (
            having(Trait.LAYOUT) | having(Trait.PART) | having(Trait.CAST) | (having(Trait.MOVES) & having(Trait.FILLS))
        )
        scaling, shifting, selectors = having(Trait.SCALING), having(Trait.SHIFTING), having(Trait.SELECTOR)
        affine = relayout | scaling | shifting
        return cls(
            relayout=relayout,
            scaling=scaling,
            shifting=shifting,
            affine=affine,
            weight_steps=relayout | scaling | MIXING,
            masking=having(Trait.CHOICE),
            bounded=having(Trait.GATE),
            selectors=selectors,
            pointwise=selectors
            | scaling
            | shifting
            | {aten.softplus.default, aten.exp.default, aten.log1p.default}
            | {aten.pow.Tensor_Scalar, aten.square.default, aten._to_copy.default},
            statistics=having(Trait.STATISTIC),
            roots=having(Trait.ROOT),
            statistic_steps=affine
            | having(Trait.ROOT)
            | {aten.reciprocal.default, aten.clamp.default, aten.pow.Tensor_Scalar, aten.relu.default}
            | {aten.mean.dim, aten.maximum.default},
            above=having(Trait.ABOVE),
            below=having(Trait.BELOW),
            choices=frozenset(op for op in having(Trait.CHOICE) if op._schema.arguments[0].name == "condition"),
            zeros=having(Trait.ZEROS),
        )


VOCABULARY = Vocabulary.of(OPERATORS)
