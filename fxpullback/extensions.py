"""What a user adds to the compiler from outside: values that are passed in, and registered nowhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fxpullback.contract.errors import RuleError
from fxpullback.graph.operators import OPERATORS, OperatorTable, Traits
from fxpullback.lowering.rewrite import Rewrite
from fxpullback.rules import Pattern, RuleSet
from fxpullback.rules.rule import Rule
from fxpullback.vjp import TABLE, VJPRule, VJPTable, table_of

Extension = Rule | Pattern | VJPRule | Traits | Rewrite
_KINDS = (Rule, Pattern, VJPRule, Traits, Rewrite)


@dataclass(frozen=True)
class Extensions:
    """Further rules of all kinds, for one compilation.

    Attributes:
        rules: gate rules.
        patterns: patterns; they are asked before those of the rule set.
        vjps: VJP rules, for operators that have none.
        traits: what is true of operators that the package does not know.
        rewrites: rewrites of the lowering.
    """

    rules: tuple[Rule, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    vjps: tuple[VJPRule, ...] = ()
    traits: tuple[Traits, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()

    @classmethod
    def of(cls, values: Iterable[Any]) -> Extensions:
        """Sort values by what they are.

        Raises:
            RuleError: a value that is none of these.
        """
        if isinstance(values, _KINDS):
            raise RuleError(f"extensions is one {type(values).__name__}; pass a list of them: extensions=[...].")
        values = list(values)
        for value in values:
            if not isinstance(value, _KINDS):
                kinds = ", ".join(kind.__name__ for kind in _KINDS)
                raise RuleError(
                    f"{value!r} is no extension; there are: {kinds}. docs/adding-a-rule.md shows how each is made."
                )
        return cls(
            rules=tuple(v for v in values if isinstance(v, Rule)),
            patterns=tuple(v for v in values if isinstance(v, Pattern)),
            vjps=tuple(v for v in values if isinstance(v, VJPRule)),
            traits=tuple(v for v in values if isinstance(v, Traits)),
            rewrites=tuple(v for v in values if isinstance(v, Rewrite)),
        )

    def rule_set(self, rules: RuleSet) -> RuleSet:
        """A rule set with the further gate rules and patterns, those that it does not hold yet."""
        further = [rule for rule in self.rules if rule not in rules.rules]
        found = [pattern for pattern in self.patterns if pattern not in rules.patterns]
        rules = rules.with_rules(*further) if further else rules
        return rules.with_patterns(*found) if found else rules

    def vjp_table(self) -> VJPTable:
        """All VJP rules by operator.

        Raises:
            RuleError: two for one operator.
        """
        return table_of(self.vjps, TABLE)

    def operators(self) -> OperatorTable:
        """What is true of every operator.

        Raises:
            RuleError: traits of an operator that has some already.
        """
        return OPERATORS.with_traits(*self.traits) if self.traits else OPERATORS
