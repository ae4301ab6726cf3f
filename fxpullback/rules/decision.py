"""What a rule set decides about every operator of a captured graph: its rule, or why it has none."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from fxpullback.contract.errors import RuleError, UnsupportedGateError
from fxpullback.graph.ir import AUTHORED, GETITEM, arg, calls, depends_on, input_nodes, is_size, where
from fxpullback.graph.operators import OPERATORS, OperatorTable
from fxpullback.rules.noise import NOISES, Noise
from fxpullback.rules.patterns.flow import Flow
from fxpullback.rules.patterns.pattern import Match
from fxpullback.rules.rule import Rule, Verdict
from fxpullback.rules.ruleset import RuleSet, operator_key
from fxpullback.vjp import TABLE, VJPTable, kind_of
from fxpullback.vjp.derive import is_derivable


@dataclass(frozen=True)
class Decision:
    """What the rewrite will do with one operator.

    Attributes:
        verdict: what the ledger says of it, as long as a cotangent arrives.
        gate: whether it is nonlinear in the input.
        rule: the rule whose soft expression is injected, or None.
        match: what a pattern found, where the rule is a pattern's, or would be if it were not kept exact.
        temperature: temperature of the rule, or None.
        noise: the noise that the rule takes its expectation under, or None.
        reason: why, for what has no rule.
        why_not: for what stays exact, (public name, sentence) of the patterns that it misses.
    """

    verdict: Verdict
    gate: bool = False
    rule: Rule | None = None
    match: Match | None = None
    temperature: float | None = None
    noise: Noise | None = None
    reason: str | None = None
    why_not: tuple[tuple[str, str], ...] = ()


def decide(
    graph: fx.Graph, rules: RuleSet, vjps: VJPTable = TABLE, operators: OperatorTable = OPERATORS
) -> dict[fx.Node, Decision]:
    """One decision for every operator of a captured graph."""
    flow = Flow(graph, operators)
    authors = _parts_of_authors(graph)
    decisions: dict[fx.Node, Decision] = {}
    missing: list[fx.Node] = []
    for node in calls(graph):
        decision = authors.get(node) or _decide(node, rules, flow, vjps)
        if decision is None:
            missing.append(node)
        else:
            decisions[node] = decision
    if missing:
        raise UnsupportedGateError(_unsupported(missing, vjps))
    _check_calibration(decisions, rules)
    return {**decisions, **_parts_of_kept(graph, decisions)}


def _parts_of_kept(graph: fx.Graph, decisions: dict[fx.Node, Decision]) -> dict[fx.Node, Decision]:
    """The exact operators inside a gate that is kept exact, as the softmax of an attention: asked for with it."""
    parts: dict[fx.Node, Decision] = {}
    for gate in decisions.values():
        if gate.rule is None and gate.match is not None:
            inside = (node for ends in gate.match.replays.values() for node in between(graph, *ends))
            exact = (node for node in inside if decisions[node].verdict == "exact")
            parts |= {node: Decision("exact", True, reason=gate.reason) for node in exact}
    return parts


def _parts_of_authors(graph: fx.Graph) -> dict[fx.Node, Decision]:
    """What nothing reads but a backward that the model's author wrote: its factor, and the product with it."""
    parts: dict[fx.Node, Decision] = {}
    for node in reversed(list(calls(graph))):
        authors = {_author(user, node) if user.target is AUTHORED else parts.get(user) for user in node.users}
        if len(authors) == 1 and (found := authors.pop()) is not None:
            parts[node] = found
    return parts


def _author(authored: fx.Node, node: fx.Node) -> Decision | None:
    """The decision about the soft argument; None for the primal one."""
    primal, soft, author = authored.args
    return Decision("linear", reason=f"part of {author}.backward") if node is soft and node is not primal else None


def _check_calibration(decisions: dict[fx.Node, Decision], rules: RuleSet) -> None:
    """Refuse temperatures that were found for another model."""
    if not rules.calibrated:
        return
    names = {node.name for node in decisions}
    gates = {node.name for node, d in decisions.items() if d.rule is not None and rules.calibrates(d.rule)}
    strange = sorted((set(rules.calibrated) - names) | (gates - set(rules.calibrated)))
    if strange:
        raise RuleError(
            f"the rules were calibrated on another model: {len(strange)} gates do not match, such as {strange[0]}. "
            "Calibrate on the model that is compiled, after the last change to the rules."
        )


def _decide(node: fx.Node, rules: RuleSet, flow: Flow, vjps: VJPTable) -> Decision | None:
    if node not in flow.active:
        return Decision("constant", reason=_why_constant(node, flow))
    if node.target is AUTHORED:
        return Decision("exact", True, reason=f"the model's own backward: {arg(node, 2)}.backward")
    pattern, match = rules.pattern_for(node, flow) or (None, None)
    if pattern is not None and not rules.keeps_match(pattern, node):
        return _gate(node, pattern.rule, rules, match)
    found = rules.rule_for(node.target)
    if found is not None:
        return _gate(node, found, rules)
    kind = "linear" if node.target is GETITEM else kind_of(node, flow.active, vjps)
    if kind == "constant" or not flow.active_inputs(node):
        return Decision("constant", reason="its derivative is zero")
    if kind == "linear" and not flow.is_choice(node):
        return Decision("linear")
    if pattern is not None:
        asked = pattern.rule.public if rules.keeps_rule(pattern.rule) else operator_key(str(node.target))
        return Decision("exact", True, match=match, reason=_asked_for(asked))
    reason = _why_exact(node, kind, rules)
    return None if reason is None else Decision("exact", True, reason=reason, why_not=rules.why_not(node, flow))


def _gate(node: fx.Node, rule: Rule, rules: RuleSet, match: Match | None = None) -> Decision:
    noise = NOISES[rules.noise] if rule.takes_noise else None
    return Decision(rule.verdict, True, rule, match, rules.temperature_of(rule, node.name), noise)


def _why_constant(node: fx.Node, flow: Flow) -> str:
    if is_size(node):
        return "a size"
    return "its derivative is zero" if node in flow.reached else "no path from the input"


def _why_exact(node: fx.Node, kind: str, rules: RuleSet) -> str | None:
    """Why an operator keeps its exact derivative; None where nothing says that it may."""
    if kind == "linear":
        return "a choice by comparison or order: linear in what it passes on"
    if rules.keeps(node.target):
        return _asked_for(operator_key(str(node.target)))
    for rule in rules.rules:
        if node.target in rule.targets:
            return _asked_for(rule.public)
    if kind == "product":
        return "both factors carry the picture"
    return rules.exact.get(node.target, rules.otherwise or None)


def _asked_for(name: str) -> str:
    return f"asked for: keep_exact({name!r})"


def _unsupported(nodes: list[fx.Node], vjps: VJPTable) -> str:
    names = sorted({operator_key(str(n.target)) for n in nodes})
    listed = "\n  ".join(where(n) for n in nodes)
    head = f"no rule for {where(nodes[0])}" if len(nodes) == 1 else f"no rule for {len(nodes)} operators:\n  {listed}"
    without = [node for node in nodes if node.target not in vjps and not is_derivable(node)]
    if without:
        which = "It has" if len(names) == 1 else f"{where(without[0])} has"
        return (
            f"{head}.\n{which} no derivative that a graph can hold either. Write the model without it, or add a "
            "rule and a VJP rule: docs/adding-a-rule.md."
        )
    keep = ", ".join(f'"{name}"' for name in names)
    which = "its exact derivative" if len(names) == 1 else "their exact derivatives"
    return f"{head}.\nPass keep_exact=[{keep}] to use {which}, or add a rule: docs/adding-a-rule.md."


def between(graph: fx.Graph, start: fx.Node, end: fx.Node) -> list[fx.Node]:
    """The operators from `start` to `end`, both of them values of a captured graph: `start` is not among them."""
    reached = depends_on(graph, [start]) - {start}
    needed, waiting = set(), [end]
    while waiting:
        node = waiting.pop()
        if node in needed or node not in reached:
            continue
        needed.add(node)
        waiting += input_nodes(node)
    return [node for node in graph.nodes if node in needed]
