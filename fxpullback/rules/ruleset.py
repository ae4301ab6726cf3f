"""Rule sets: immutable values that say which rule each operator gets, and at which temperature."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from fxpullback.contract.errors import RuleError
from fxpullback.graph.ir import aten
from fxpullback.rules.rule import Rule

# Rules that share a public name: `with_temperature` and `keep_exact` apply to an operator and to its other forms.
_SAME = {
    "attention_by_hand": "attention",
    "silu_by_hand": "silu",
    "relu_by_hand": "relu",
    "shrink_by_hand": "softshrink",
    "max_pool_zero_padding": "max_pool",
}


def public_name(rule: Rule) -> str:
    """The name under which a rule is asked for and listed: `attention` for fused and written-out attention."""
    return _SAME.get(rule.name, rule.name)


@dataclass(frozen=True)
class RuleSet:
    """Which rule every operator gets.

    Attributes:
        name: name of the set, for the ledger and the file.
        rules: rules by operator; two for one operator are an error.
        patterns: rules applied to several operators together (attention written out, gated products, ...).
        exact: operators that keep their exact derivative by rule, with the reason.
        otherwise: reason for keeping every other nonlinear operator exact; None makes such an operator an error.
        kept: names asked for with `keep_exact`.
        temperatures: temperatures by rule name, asked for by hand. They go before calibrated ones and the rules' own.
        calibrated: temperatures of single gates, by the gate's node name in the captured graph.
    """

    name: str
    rules: tuple[Rule, ...] = ()
    patterns: tuple[Rule, ...] = ()
    exact: Mapping[Any, str] = field(default_factory=dict)
    otherwise: str | None = None
    kept: frozenset[str] = frozenset()
    temperatures: Mapping[str, float] = field(default_factory=dict)
    calibrated: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        taken: dict[Any, str] = {}
        for rule in self.rules:
            for target in rule.targets:
                if target in taken:
                    raise RuleError(f"two rules for {target}: {taken[target]} and {rule.name}. Leave one of them out.")
                taken[target] = rule.name
        for name in ("exact", "temperatures", "calibrated"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def rule_names(self) -> tuple[str, ...]:
        """Names that `with_temperature` and `keep_exact` understand, sorted."""
        return tuple(sorted({public_name(rule) for rule in (*self.rules, *self.patterns)}))

    def with_temperature(self, **temperatures: float) -> RuleSet:
        """The same set with other temperatures, by rule name: `with_temperature(relu=0.4)`.

        Raises:
            RuleError: no rule of that name, a rule without a temperature, or one that is not a positive number.
        """
        having = {public_name(r) for r in (*self.rules, *self.patterns) if r.temperature is not None}
        for name, temperature in temperatures.items():
            if name not in having:
                raise RuleError(self._unknown(name, having, "has a temperature"))
            if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
                raise RuleError(f"the temperature of {name} is {temperature!r}; give a positive number, such as 0.6.")
        return replace(self, temperatures={**self.temperatures, **{k: float(v) for k, v in temperatures.items()}})

    def keep_exact(self, *names: str) -> RuleSet:
        """The same set with the exact derivative for the named rules or operators: `keep_exact("attention")`.

        Raises:
            RuleError: a name that is neither a rule of this set nor an operator of torch.
        """
        for name in names:
            if name not in self.rule_names() and not hasattr(aten, operator_key(name)):
                raise RuleError(self._unknown(name, set(self.rule_names()), "is a rule of this set"))
        return replace(self, kept=self.kept | {operator_key(name) for name in names})

    def without(self, *names: str) -> RuleSet:
        """The same set with the named rules taken out: a model that needs one of them is refused, not explained.

        Raises:
            RuleError: no rule of that name.
        """
        known = set(self.rule_names())
        for name in names:
            if name not in known:
                raise RuleError(self._unknown(name, known, "is a rule of this set"))
        rules, patterns = (
            tuple(rule for rule in some if public_name(rule) not in names) for some in (self.rules, self.patterns)
        )
        temperatures = {name: t for name, t in self.temperatures.items() if name not in names}
        changed = f"{self.name} without {', '.join(names)}"
        return replace(self, name=changed, rules=rules, patterns=patterns, temperatures=temperatures)

    def keeps(self, target: Any) -> bool:
        """Whether `keep_exact` names this operator."""
        return operator_key(str(target)) in self.kept

    def rule_for(self, target: Any) -> Rule | None:
        """The rule of an operator, unless it is kept exact."""
        for rule in self.rules:
            if target in rule.targets and not (self.keeps(target) or public_name(rule) in self.kept):
                return rule
        return None

    def pattern(self, name: str) -> Rule | None:
        """The pattern rule called `name`, unless it is kept exact."""
        for rule in self.patterns:
            if rule.name == name and not {name, public_name(rule)} & self.kept:
                return rule
        return None

    def temperature_of(self, rule: Rule, gate: str) -> float | None:
        """Temperature of the gate at captured node `gate`: asked for, else calibrated, else the rule's own."""
        if rule.temperature is None:
            return None
        return self.temperatures.get(public_name(rule), self.calibrated.get(gate, rule.temperature))

    def calibrates(self, rule: Rule) -> bool:
        """Whether `calibrate` sets this rule's temperatures; a temperature asked for by hand stays."""
        return rule.spread is not None and public_name(rule) not in self.temperatures

    def describe(self) -> dict[str, Any]:
        """What goes into a file: name, temperatures and exceptions, as plain values."""
        defaults = {public_name(r): r.temperature for r in (*self.rules, *self.patterns) if r.temperature is not None}
        return {
            "name": self.name,
            "temperatures": dict(sorted({**defaults, **self.temperatures}.items())),
            "kept_exact": sorted(self.kept),
            "calibrated": dict(self.calibrated),
        }

    def _unknown(self, name: str, known: set[str], what: str) -> str:
        near = difflib.get_close_matches(name, sorted(known), 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"nothing called {name!r} {what} ({self.name}: {', '.join(sorted(known)) or 'no rules'}).{hint}"


def operator_key(name: str) -> str:
    """`erfinv` for `aten.erfinv.default`, `aten::erfinv` and `erfinv`; rule names stay as they are."""
    parts = name.replace("aten::", "aten.").split(".")
    return parts[1] if parts[0] == "aten" and len(parts) > 1 else parts[0]
