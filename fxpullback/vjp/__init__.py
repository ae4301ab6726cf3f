"""VJP rules: one for each primitive, written in forward operators.

`RULES` holds all of them, and `TABLE` the rule of each operator. `fxpullback.vjp.rule` explains what a rule takes and
returns.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from fxpullback.vjp import (
    arithmetic,
    attention,
    convolution,
    functions,
    gates,
    indexing,
    linear,
    normalization,
    padding,
    pooling,
    reduction,
    resize,
    shape,
)
from fxpullback.vjp.rule import ABSENT, NOT_DIFFERENTIABLE, ZERO, Kind, Missing, VJPRule

RULES: tuple[VJPRule, ...] = (
    *arithmetic.RULES,
    *attention.RULES,
    *convolution.RULES,
    *functions.RULES,
    *gates.RULES,
    *indexing.RULES,
    *linear.RULES,
    *normalization.RULES,
    *padding.RULES,
    *pooling.RULES,
    *reduction.RULES,
    *resize.RULES,
    *shape.RULES,
)

TABLE: dict[Any, VJPRule] = {}
for _rule in RULES:
    for _target in _rule.targets:
        assert _target not in TABLE, f"two VJP rules for {_target}"
        TABLE[_target] = _rule


def kind_of(node: fx.Node, active: set[fx.Node]) -> Kind:
    """The kind of the operator at one node: linear, product, nonlinear or constant. Without a rule it is nonlinear.

    Args:
        node: a call of the operator.
        active: the nodes that depend on the input.
    """
    rule = TABLE.get(node.target)
    return "nonlinear" if rule is None else rule.kind_at(node, active)


__all__ = ["ABSENT", "NOT_DIFFERENTIABLE", "RULES", "TABLE", "ZERO", "Kind", "Missing", "VJPRule", "kind_of"]
