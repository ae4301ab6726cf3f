"""Names that a model is asked to keep exact: each must be in it, as one that is not has no effect."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from torch import fx

from fxpullback.contract.errors import RuleError
from fxpullback.graph.ir import calls
from fxpullback.ledger import Ledger
from fxpullback.rules.ruleset import RuleSet, operator_key


def check_kept(captured: fx.GraphModule, rules: RuleSet, ledger: Ledger, names: Iterable[str]) -> None:
    """Refuse a name that no operator of a model has, and no rule of one.

    Raises:
        RuleError: says what there is, and what is spelled most alike.
    """
    targets = {node.target for node in calls(captured.graph)}
    there = {operator_key(str(target)) for target in targets}
    there |= {rule.public for rule in rules.rules if not targets.isdisjoint(rule.targets)}
    asked = {row.reason for row in ledger.rows}
    for name in names:
        key = operator_key(name)
        if key not in there and f"asked for: keep_exact({key!r})" not in asked:
            raise RuleError(_unknown(name, ledger))


def _unknown(name: str, ledger: Ledger) -> str:
    gates = sorted({row.rule or operator_key(row.operator) for row in ledger.rows if row.gate})
    near = difflib.get_close_matches(name, gates, 3, 0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return (
        f"keep_exact: the model has no operator called {name!r} once it is captured, and no gate of that rule. Its "
        f"gates and other nonlinear operators are {', '.join(gates) or 'none'}.{hint}"
    )
