"""The questions that every stage asks about an operator, answered from one table.

`OPERATORS.of(operator)` is strict: an operator that neither the table nor torch says anything of is an error. What a
rewrite asks of any node of a graph is `OPERATORS.at(node)`: there, nothing is assumed of an operator that is not known,
so that the rewrite leaves it alone; `unknown` lists such nodes. A table is a value: `with_traits` makes another one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import fx

from fxpullback.contract.errors import RuleError, UnknownOperatorError
from fxpullback.graph.ir import calls, is_size, operator_name
from fxpullback.graph.operator_table import ROWS
from fxpullback.graph.traits import Trait, Traits

__all__ = ["OPERATORS", "OperatorTable", "Trait", "Traits", "said_by_torch"]

NOTHING = Traits(None)
A_SIZE = Traits(None, frozenset({Trait.SIZE}))


@dataclass(frozen=True, eq=False)
class OperatorTable:
    """What is true of each operator.

    Attributes:
        rows: traits by operator, what torch says of it included.
    """

    rows: Mapping[Any, Traits]

    @classmethod
    def made_of(cls, rows: Iterable[Traits]) -> OperatorTable:
        """A table of rows.

        Raises:
            RuleError: two rows for one operator.
        """
        return cls(MappingProxyType({})).with_traits(*rows)

    def with_traits(self, *rows: Traits) -> OperatorTable:
        """The same table with further rows.

        Raises:
            RuleError: two rows for one operator.
        """
        found = dict(self.rows)
        for row in rows:
            if row.operator in found:
                raise RuleError(f"two rows of traits for {operator_name(row.operator)}. Leave one of them out.")
            found[row.operator] = _with_torch(row)
        return OperatorTable(MappingProxyType(found))

    def knows(self, operator: Any) -> bool:
        """Whether the table or torch says what is true of an operator."""
        return operator in self.rows or said_by_torch(operator) is not None

    def of(self, operator: Any) -> Traits:
        """What is true of an operator.

        Raises:
            UnknownOperatorError: neither the table nor torch says anything of it.
        """
        found = self.rows.get(operator) or said_by_torch(operator)
        if found is None:
            raise UnknownOperatorError(
                f"nothing is known of {operator_name(operator)}: whether it moves numbers, is linear, acts entry by "
                "entry, or is safe in half precision. Give its traits: docs/adding-a-rule.md."
            )
        return found

    def at(self, node: fx.Node) -> Traits:
        """What is true of the operator that a node calls; nothing is assumed of one that is not known.

        An input, a constant and an output have no traits.
        """
        if node.op != "call_function":
            return NOTHING
        if is_size(node):
            return A_SIZE
        return self.rows.get(node.target) or said_by_torch(node.target) or opaque(node.target)

    def number_of(self, node: fx.Node) -> float | None:
        """By what number a product or quotient multiplies its first argument; None where a node is something else."""
        traits = self.at(node)
        if Trait.SCALING not in traits or not traits.factors or len(node.args) < 2 or node.kwargs:
            return None
        value, number = node.args[:2]
        if not isinstance(value, fx.Node) or isinstance(number, bool) or not isinstance(number, int | float):
            return None
        if traits.divisor is None:
            return float(number)
        return 1 / number if number else None

    def having(self, trait: Trait) -> frozenset[Any]:
        """The operators of the rows that a trait is true of."""
        return frozenset(operator for operator, row in self.rows.items() if trait in row)

    def unknown(self, graph: fx.Graph) -> list[fx.Node]:
        """The calls of a graph that `at` assumes nothing of because nothing is known of their operators."""
        return [node for node in calls(graph) if not is_size(node) and not self.knows(node.target)]


def opaque(operator: Any) -> Traits:
    """The row of an operator that nothing is assumed of."""
    return Traits(operator, frozenset({Trait.OPAQUE}))


@functools.cache
def said_by_torch(operator: Any) -> Traits | None:
    """What torch's own tags and schema say of an operator; None if that is nothing."""
    if not isinstance(operator, torch._ops.OpOverload):
        return None
    found = set()
    if torch.Tag.pointwise in operator.tags:
        found.add(Trait.POINTWISE)
    if torch.Tag.reduction in operator.tags:
        found.add(Trait.REDUCTION)
    if not any("Tensor" in str(argument.type) for argument in operator._schema.arguments):
        found.add(Trait.CONSTANT)
    return Traits(operator, frozenset(found)) if found else None


def _with_torch(row: Traits) -> Traits:
    said = said_by_torch(row.operator)
    if said is None or Trait.OPAQUE in row:
        return row
    return replace(row, traits=row.traits | said.traits)


OPERATORS = OperatorTable.made_of(ROWS)
"""What is true of torch's operators and of the two that the IR adds."""
