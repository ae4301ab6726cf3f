"""Rule sets: immutable values that say which rule each operator gets, and at which temperature."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import fx

from fxpullback.contract.errors import RuleError
from fxpullback.rules.noise import NOISES, NORMAL
from fxpullback.rules.patterns.flow import Flow
from fxpullback.rules.patterns.pattern import Match, Pattern
from fxpullback.rules.rule import Rule, check_operators

SPREAD = 0.9  # temperature of a calibrated gate, in standard deviations of its input


@dataclass(frozen=True)
class RuleSet:
    """Which rule every operator gets.

    Attributes:
        name: name of the set, for the ledger and the file.
        rules: rules by operator; two for one operator are an error.
        patterns: what finds gates written as several operators (attention written out, gated products, ...), with their
            rules; the first that finds its gate at an operator has it, before any rule of that operator alone.
        exact: operators that keep their exact derivative by rule, with the reason.
        otherwise: reason for keeping every other nonlinear operator exact; None makes such an operator an error.
        kept: names asked for with `keep_exact`.
        temperatures: temperatures by rule name, asked for by hand. They go before calibrated ones and the rules' own.
        spread: where temperatures are calibrated, how many standard deviations of a gate's input; None: they are not.
        calibrated: temperatures of single gates, by the gate's node name in the captured graph.
        calibrated_on: what those were found on, as `{"kind": "pictures", "samples": 16}`; the kinds are noise,
            pictures, examples, and none with the reason `why`. Empty: `compile` calibrates a set with a spread.
        noise: the distribution that gates are expected under, normal or logistic.
    """

    name: str
    rules: tuple[Rule, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    exact: Mapping[Any, str] = field(default_factory=dict)
    otherwise: str | None = None
    kept: frozenset[str] = frozenset()
    temperatures: Mapping[str, float] = field(default_factory=dict)
    spread: float | None = None
    calibrated: Mapping[str, float] = field(default_factory=dict)
    calibrated_on: Mapping[str, Any] = field(default_factory=dict)
    noise: str = NORMAL.name

    def __post_init__(self) -> None:
        for pattern in self.patterns:
            _check_pattern(pattern)
        taken: dict[Any, str] = {}
        for rule in self.rules:
            _check_rule(rule)
            for target in rule.targets:
                if target in taken:
                    raise RuleError(f"two rules for {target}: {taken[target]} and {rule.name}. Leave one of them out.")
                taken[target] = rule.name
        for name in ("exact", "temperatures", "calibrated", "calibrated_on"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def rule_names(self) -> tuple[str, ...]:
        """Names that `with_temperature` and `keep_exact` understand, sorted."""
        return tuple(sorted({rule.public for rule in self.all_rules}))

    @property
    def all_rules(self) -> tuple[Rule, ...]:
        """The rules of single operators, then those of the patterns."""
        return (*self.rules, *(pattern.rule for pattern in self.patterns))

    def with_rules(self, *rules: Rule) -> RuleSet:
        """The same set with further rules: `SEMANTIC.with_rules(my_rule)`.

        Raises:
            RuleError: something that is no rule, a rule of no operator, or of one that has a rule in this set already.
        """
        return replace(self, rules=(*self.rules, *rules))._with(rules)

    def with_patterns(self, *patterns: Pattern) -> RuleSet:
        """The same set with further patterns, which are asked before its own: `SEMANTIC.with_patterns(my_pattern)`.

        Raises:
            RuleError: something that is no pattern.
        """
        return replace(self, patterns=(*patterns, *self.patterns))._with(pattern.rule for pattern in patterns)

    def with_temperature(self, **temperatures: float) -> RuleSet:
        """The same set with other temperatures, by rule name: `with_temperature(relu=0.4)`.

        Raises:
            RuleError: no rule of that name, a rule without a temperature, or one that is not a positive number.
        """
        having = {rule.public for rule in self.all_rules if rule.temperature is not None}
        for name, temperature in temperatures.items():
            if name not in having:
                raise RuleError(self._unknown(name, having, "has a temperature"))
            if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
                raise RuleError(f"the temperature of {name} is {temperature!r}; give a positive number, such as 0.6.")
        return replace(self, temperatures={**self.temperatures, **{k: float(v) for k, v in temperatures.items()}})

    def with_spread(self, spread: float = SPREAD) -> RuleSet:
        """The same set, to be calibrated anew where it is compiled: each gate's T is `spread` deviations of its input.

        Raises:
            RuleError: `spread` is not a positive number.
        """
        if not isinstance(spread, int | float) or not 0 < spread < math.inf:
            raise RuleError(f"spread is {spread!r}; give a positive number, such as 0.9.")
        return replace(self, spread=float(spread), calibrated={}, calibrated_on={})

    def with_noise(self, noise: str) -> RuleSet:
        """The same set with gates expected under other noise: `SEMANTIC.with_noise("logistic")`, or "normal" again.

        Under logistic noise an expected step is sigma(1.702 z / T) in place of Phi(z / T). GELU, SiLU and the like keep
        their own gates, max-pools their softmax. `REFERENCE` takes it too, as it takes other temperatures: what it then
        gives is no longer what the authors' code does.

        Raises:
            RuleError: another word, or a set with no rule that takes noise, as `EXACT`.
        """
        if noise not in NOISES:
            raise RuleError(f"there is no noise {noise!r}; there are {' and '.join(NOISES)}.")
        if not any(rule.takes_noise for rule in self.all_rules):
            raise RuleError(f"no rule of the set {self.name} takes noise; with_noise is for those with gates as ReLU.")
        return replace(self, noise=noise)

    def keep_exact(self, *names: str) -> RuleSet:
        """The same set with the exact derivative for the named rules or operators: `keep_exact("attention")`.

        Raises:
            RuleError: a name that is neither a rule of this set nor an operator of torch.
        """
        for name in names:
            if name not in self.rule_names() and not _is_operator(name):
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
        rules = tuple(rule for rule in self.rules if rule.public not in names)
        patterns = tuple(pattern for pattern in self.patterns if pattern.rule.public not in names)
        temperatures = {name: t for name, t in self.temperatures.items() if name not in names}
        changed = f"{self.name} without {', '.join(names)}"
        return replace(self, name=changed, rules=rules, patterns=patterns, temperatures=temperatures)

    def keeps(self, target: Any) -> bool:
        """Whether `keep_exact` names this operator."""
        return operator_key(str(target)) in self.kept

    def keeps_rule(self, rule: Rule) -> bool:
        """Whether `keep_exact` names this rule."""
        return rule.public in self.kept

    def keeps_match(self, pattern: Pattern, node: fx.Node) -> bool:
        """Whether `keep_exact` names the rule of a pattern, or the operator that its gate ends at."""
        return self.keeps_rule(pattern.rule) or self.keeps(node.target)

    def rule_for(self, target: Any) -> Rule | None:
        """The rule of an operator, unless it is kept exact."""
        for rule in self.rules:
            if target in rule.targets and not (self.keeps(target) or self.keeps_rule(rule)):
                return rule
        return None

    def pattern_for(self, node: fx.Node, flow: Flow) -> tuple[Pattern, Match] | None:
        """The first pattern whose gate ends at a captured node, and its match; kept exact or not."""
        for pattern in self.patterns:
            match = pattern.match(node, flow)
            if match is not None:
                return pattern, match
        return None

    def why_not(self, node: fx.Node, flow: Flow) -> tuple[tuple[str, str], ...]:
        """What the patterns say of a node that is none of their gates: (public name, sentence)."""
        told = ((pattern.rule.public, pattern.why_not(node, flow)) for pattern in self.patterns)
        return tuple((name, sentence) for name, sentence in told if sentence is not None)

    def temperature_of(self, rule: Rule, gate: str) -> float | None:
        """Temperature of the gate at captured node `gate`: asked for, else calibrated, else the rule's own."""
        if rule.temperature is None:
            return None
        return self.temperatures.get(rule.public, self.calibrated.get(gate, rule.temperature))

    def calibrates(self, rule: Rule) -> bool:
        """Whether `calibrate` sets this rule's temperatures; a temperature asked for by hand stays."""
        return rule.spread is not None and rule.public not in self.temperatures

    def describe(self) -> dict[str, Any]:
        """What goes into a file: name, temperatures and exceptions, as plain values."""
        defaults = {rule.public: rule.temperature for rule in self.all_rules if rule.temperature is not None}
        return {
            "name": self.name,
            "temperatures": dict(sorted({**defaults, **self.temperatures}.items())),
            "kept_exact": sorted(self.kept),
            "calibrated": dict(self.calibrated),
            **({"spread": self.spread, "calibrated_on": dict(self.calibrated_on)} if self.calibrated_on else {}),
            **({"noise": self.noise} if self.noise != NORMAL.name else {}),
        }

    def _with(self, rules: Iterable[Rule]) -> RuleSet:
        """This set under a name that tells what came to it."""
        names = [rule.public for rule in rules]
        return replace(self, name=f"{self.name} with {', '.join(names)}") if names else self

    def _unknown(self, name: str, known: set[str], what: str) -> str:
        near = difflib.get_close_matches(name, sorted(known), 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"nothing called {name!r} {what} ({self.name}: {', '.join(sorted(known)) or 'no rules'}).{hint}"


def _check_rule(rule: Any) -> None:
    """Refuse what can be the rule of no single operator."""
    if not isinstance(rule, Rule):
        raise RuleError(f"{_called(rule)} is no rule; make one of a function with @gate(operator, ...).")
    if not rule.targets:
        raise RuleError(
            f"rule {rule.name} has no operator: name those it applies to in @gate(...), or give it to a Pattern, which "
            "finds its gate where it is written as several operators."
        )
    check_operators(f"rule {rule.name}", rule.targets)


def _check_pattern(pattern: Any) -> None:
    if not isinstance(pattern, Pattern):
        raise RuleError(
            f"{_called(pattern)} is no pattern; make one of a rule and of what finds it: Pattern(rule, find, at=...)."
        )


def _called(given: Any) -> str:
    """What something is, for the errors that refuse it."""
    if isinstance(given, Pattern):
        return f"the pattern {given.rule.name}"
    return f"the rule {given.name}" if isinstance(given, Rule) else repr(given)


def operator_key(name: str) -> str:
    """`erfinv` for `aten.erfinv.default`, `aten::erfinv` and `erfinv`; `mylib.op` for one of another library."""
    first, *rest = name.replace("::", ".").split(".")
    if first == "aten" and rest:
        return rest[0]
    return f"{first}.{rest[0]}" if rest and not hasattr(torch.ops.aten, first) else first


def _is_operator(name: str) -> bool:
    """Whether torch has an operator of this name."""
    library, _, operator = operator_key(name).rpartition(".")
    return hasattr(getattr(torch.ops, library or "aten"), operator)
