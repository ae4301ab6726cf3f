"""Every rule says in its docstring what it does: VJP rules their formula, gate rules their primal and their adjoint."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from fxpullback import REFERENCE, SEMANTIC
from fxpullback.rules.rule import Rule
from fxpullback.vjp import RULES, VJPRule

GATES: list[Rule] = list(
    dict.fromkeys(
        rule
        for rules in (SEMANTIC, REFERENCE)
        for rule in (*rules.rules, *(pattern.rule for pattern in rules.patterns))
    )
)


def tensor_parameters(rule: VJPRule) -> set[str]:
    """Parameters of a rule that are tensors in one of its operators: those that get a cotangent."""
    parameters = list(inspect.signature(rule.function).parameters.values())[2:]  # behind ct and out
    names = [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]
    found: set[str] = set()
    for target in rule.targets:
        arguments: list[Any] = target._schema.arguments
        found |= {name for name, argument in zip(names, arguments, strict=False) if "Tensor" in str(argument.type)}
    return found


def words(function: Any) -> str:
    return inspect.cleandoc(function.__doc__ or "")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_vjp_rule_has_a_formula_for_every_tensor_argument(rule: VJPRule) -> None:
    text = words(rule.function)
    parameters = tensor_parameters(rule)
    assert parameters, "the rule gives no argument a cotangent"
    said = set(re.findall(r"\bct_(\w+)(?:\[[^\]]+\])?\s=\s", text))
    assert parameters <= said, f"no formula `ct_NAME = ...` for {parameters - said} in:\n{text}"


def test_formulas_of_vjp_rules_are_their_own() -> None:
    texts = [(rule.function.__module__, words(rule.function)) for rule in RULES]
    assert len({*texts}) == len(texts)


@pytest.mark.parametrize("rule", GATES, ids=lambda rule: rule.name)
def test_gate_rule_states_its_primal_and_adjoint(rule: Rule) -> None:
    text = words(rule.soft)
    assert re.match(r"\S.+\.$", text.splitlines()[0]), "the first line is a sentence"
    for label in ("Primal: ", "Adjoint:"):
        assert re.search(rf"^{label} \S", text, re.MULTILINE), f"no line `{label.strip()} ...` in:\n{text}"


def test_softened_gate_with_a_temperature_names_it() -> None:
    silent = [rule.name for rule in GATES if rule.temperature is not None and not re.search(r"\bT\b", words(rule.soft))]
    assert not silent
