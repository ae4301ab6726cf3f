"""VJP rules: one for each primitive, written in forward operators.

`RULES` holds all of them, and `TABLE` the rule of each operator. `fxpullback.vjp.rule` explains what a rule takes and
returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from torch import fx

from fxpullback.contract.errors import RuleError
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

VJPTable = Mapping[Any, VJPRule]


def table_of(rules: Iterable[VJPRule], known: VJPTable = MappingProxyType({})) -> VJPTable:
    """VJP rules by operator.

    Args:
        rules: the rules.
        known: a table that they are added to; it is left as it is.

    Raises:
        RuleError: two rules for one operator.
    """
    table = dict(known)
    for rule in rules:
        for target in rule.targets:
            if target in table:
                raise RuleError(f"two VJP rules for {target}: {table[target].name} and {rule.name}. Leave one out.")
            table[target] = rule
    return MappingProxyType(table)


TABLE: VJPTable = table_of(RULES)
"""The VJP rules of this package, by operator."""


def kind_of(node: fx.Node, active: set[fx.Node], table: VJPTable = TABLE) -> Kind:
    """The kind of the operator at one node: linear, product, nonlinear or constant. Without a rule it is nonlinear.

    Args:
        node: a call of the operator.
        active: the nodes that depend on the input.
        table: the VJP rules.
    """
    rule = table.get(node.target)
    return "nonlinear" if rule is None else rule.kind_at(node, active)


__all__ = [
    "ABSENT",
    "NOT_DIFFERENTIABLE",
    "RULES",
    "TABLE",
    "ZERO",
    "Kind",
    "Missing",
    "VJPRule",
    "VJPTable",
    "kind_of",
    "table_of",
]
