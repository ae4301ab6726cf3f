"""Stage 2: every gate becomes `inject(primal, soft)`; the ledger says what happened to every operator.

The rewritten graph computes the model's logits bit for bit, and autograd through it gives the soft pullback.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx

from fxpullback.contract.errors import DifferentiateError, FixedSizeError, RuleError, UnsupportedGateError
from fxpullback.graph.builder import Builder
from fxpullback.graph.compilation import Compilation
from fxpullback.graph.ir import (
    GETITEM,
    INJECT,
    ORIGIN,
    RULE,
    STOP_GRADIENT,
    arg,
    calls,
    depends_on,
    explained,
    input_nodes,
    is_float_tensor,
    is_size,
    module_path,
    node_argument,
    operator_name,
    outputs,
    schema_arguments,
    source_line,
    where,
)
from fxpullback.graph.module import Graph
from fxpullback.graph.rebuild import Site, rebuild, tidy
from fxpullback.graph.value import Value
from fxpullback.ledger import Ledger, Row
from fxpullback.rules import patterns
from fxpullback.rules.rule import Rule, Verdict
from fxpullback.rules.ruleset import RuleSet, operator_key, public_name
from fxpullback.vjp import kind_of


@dataclass(frozen=True)
class Decision:
    """What the rewrite will do with one operator."""

    verdict: Verdict
    gate: bool = False
    rule: Rule | None = None
    match: patterns.Match | None = None
    temperature: float | None = None
    reason: str | None = None


def rewrite(captured: fx.GraphModule, rules: RuleSet, compilation: Compilation | None = None) -> tuple[Graph, Ledger]:
    """Rewrite a captured graph to the injected form.

    Args:
        captured: what `capture` returns.
        rules: the rule set.
        compilation: what the stages of one compilation share.

    Returns:
        The rewritten graph, runnable and differentiable as it stands, and its ledger.

    Raises:
        UnsupportedGateError: nonlinear operators without a rule, all of them named at once.
        RuleError: the rules were calibrated on another model.
    """
    decisions = decide(captured.graph, rules)
    everywhere = _emit(captured, decisions, compilation)
    live = _live_origins(everywhere.graph, decisions)
    return _without_idle(everywhere, live), _ledger(captured.graph, decisions, live)


def decide(graph: fx.Graph, rules: RuleSet) -> dict[fx.Node, Decision]:
    """One decision for every operator of a captured graph."""
    flow = patterns.Flow(graph)
    matches = {match.node: match for match in patterns.find(graph) if rules.pattern(match.rule)}
    decisions: dict[fx.Node, Decision] = {}
    missing: list[fx.Node] = []
    for node in calls(graph):
        decision = _decide(node, rules, flow, matches.get(node))
        if decision is None:
            missing.append(node)
        else:
            decisions[node] = decision
    if missing:
        raise UnsupportedGateError(_unsupported(missing))
    _check_calibration(decisions, rules)
    return decisions


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


def _decide(node: fx.Node, rules: RuleSet, flow: patterns.Flow, match: patterns.Match | None) -> Decision | None:
    if node not in flow.active:
        return Decision("constant", reason=_why_constant(node, flow))
    if match is not None:
        rule = rules.pattern(match.rule)
        assert rule is not None
        temperature = rules.temperature_of(rule, node.name)
        return Decision(rule.verdict, True, rule, match, temperature)
    found = rules.rule_for(node.target)
    if found is not None:
        return Decision(found.verdict, True, found, None, rules.temperature_of(found, node.name))
    kind = "linear" if node.target is GETITEM else kind_of(node, flow.active)
    if kind == "constant" or not flow.active_inputs(node):
        return Decision("constant", reason="its derivative is zero")
    if kind == "linear" and flow.is_choice(node):
        return Decision("exact", True, reason="a choice by comparison or order: linear in what it passes on")
    return Decision("linear") if kind == "linear" else _exact(node, kind, rules)


def _why_constant(node: fx.Node, flow: patterns.Flow) -> str:
    if is_size(node):
        return "a size"
    return "its derivative is zero" if node in flow.reached else "no path from the input"


def _exact(node: fx.Node, kind: str, rules: RuleSet) -> Decision | None:
    if rules.keeps(node.target):
        return Decision("exact", True, reason=f"asked for: keep_exact({operator_key(str(node.target))!r})")
    if any(node.target in rule.targets for rule in rules.rules):
        name = next(public_name(rule) for rule in rules.rules if node.target in rule.targets)
        return Decision("exact", True, reason=f"asked for: keep_exact({name!r})")
    if kind == "product":
        return Decision("exact", True, reason="both factors carry the picture")
    if node.target in rules.exact:
        return Decision("exact", True, reason=rules.exact[node.target])
    return Decision("exact", True, reason=rules.otherwise) if rules.otherwise else None


def _unsupported(nodes: list[fx.Node]) -> str:
    names = sorted({operator_key(str(n.target)) for n in nodes})
    listed = "\n  ".join(where(n) for n in nodes)
    head = f"no rule for {where(nodes[0])}" if len(nodes) == 1 else f"no rule for {len(nodes)} operators:\n  {listed}"
    keep = ", ".join(f'"{name}"' for name in names)
    which = "its exact derivative" if len(names) == 1 else "their exact derivatives"
    return f"{head}.\nPass keep_exact=[{keep}] to use {which}, or add a rule: docs/adding-a-rule.md."


def _without_idle(gm: Graph, live: set[str]) -> Graph:
    """Take back the injections that no cotangent reaches: what lies behind them is held constant anyway."""
    for node in list(calls(gm.graph)):
        if node.target is INJECT and node.meta[ORIGIN] not in live:
            node.replace_all_uses_with(node_argument(node, 0))
    return tidy(gm)


def _emit(captured: fx.GraphModule, decisions: dict[fx.Node, Decision], compilation: Compilation | None) -> Graph:
    """Copy the graph with every gate injected."""

    def emit(site: Site) -> Any:
        decision = decisions.get(site.node)
        if decision is None or decision.rule is None:
            return NotImplemented
        site.env[site.node] = site.copy()
        return _inject(site.builder, site.node, decision, site.env, captured.graph)

    return rebuild(captured, emit, compilation)


def _inject(
    builder: Builder, node: fx.Node, decision: Decision, env: dict[fx.Node, Any], graph: fx.Graph
) -> Value | tuple[Value, ...]:
    rule, options = decision.rule, {}
    assert rule is not None
    if decision.temperature is not None:
        options["temperature"] = decision.temperature
    kept = {k: v for k, v in node.meta.items() if k in ("nn_module_stack", "stack_trace")}
    with builder.provenance(f"{node.name}_soft", **{ORIGIN: node.name, RULE: rule.name, **kept}):
        if decision.match is not None:
            soft = rule(**_pattern_arguments(builder, decision.match, env, graph), **options)
        else:
            arguments = fx.map_arg(schema_arguments(node), lambda n: env[n])
            try:
                soft = rule(*arguments, **options)
            except FixedSizeError as error:
                raise DifferentiateError(
                    f"free_size: {where(node)} {error}. Compile the model for one size."
                ) from error
    primal = env[node]
    first = primal[0] if isinstance(primal, tuple) else primal
    with builder.provenance(f"{node.name}_injected", **{ORIGIN: node.name, RULE: rule.name, **kept}):
        injected = builder.call(INJECT, (first, soft), {})
    return (injected, *primal[1:]) if isinstance(primal, tuple) else injected


def _pattern_arguments(
    builder: Builder, match: patterns.Match, env: dict[fx.Node, Any], graph: fx.Graph
) -> dict[str, Any]:
    values = {k: env[v] if isinstance(v, fx.Node) else v for k, v in match.arguments.items()}
    for name, (start, end) in match.replays.items():
        values[name] = _replay(builder, graph, start, end, env)
    return values


def _replay(
    builder: Builder, graph: fx.Graph, start: fx.Node, end: fx.Node, env: dict[fx.Node, Any]
) -> Callable[[Value], Value]:
    """A function that computes `end` anew from another value at `start`, by the model's own operators."""
    between = _between(graph, start, end)

    def run(value: Value) -> Value:
        if value is env[start]:
            return env[end]  # type: ignore[no-any-return]
        local = {**env, start: value}
        for node in between:
            if node.target is GETITEM:
                local[node] = local[arg(node, 0)][arg(node, 1)]
            else:
                args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: local[n])
                local[node] = builder.call(node.target, args, kwargs)
        result: Value = local[end]
        return result

    return run


def _between(graph: fx.Graph, start: fx.Node, end: fx.Node) -> list[fx.Node]:
    reached = depends_on(graph, [start]) - {start}
    needed, waiting = set(), [end]
    while waiting:
        node = waiting.pop()
        if node in needed or node not in reached:
            continue
        needed.add(node)
        waiting += input_nodes(node)
    return [node for node in graph.nodes if node in needed]


def _live_origins(graph: fx.Graph, decisions: dict[fx.Node, Decision]) -> set[str]:
    """Names of captured operators that some cotangent of the logits reaches."""
    sources = set(depends_on(graph, [explained(graph)]))
    live: set[fx.Node] = set()
    waiting = list(outputs(graph))
    while waiting:
        node = waiting.pop()
        if node in live or node not in sources or not is_float_tensor(node):
            continue
        live.add(node)
        if node.target is STOP_GRADIENT:
            continue
        waiting += [node_argument(node, 1)] if node.target is INJECT else input_nodes(node)
    names = {str(n.meta[ORIGIN]) for n in live if ORIGIN in n.meta and n.target is not STOP_GRADIENT}
    gates = {node for node, d in decisions.items() if d.rule is not None and node.name in names}
    return names | {n.name for n in decisions if n.target is GETITEM and n.args[0] in gates and n.args[1] == 0}


def _ledger(graph: fx.Graph, decisions: dict[fx.Node, Decision], live: set[str]) -> Ledger:
    held = _holders(graph, decisions)
    rows = []
    for index, node in enumerate(calls(graph)):
        decision = decisions[node]
        verdict, reason = decision.verdict, decision.reason
        if verdict != "constant" and node.name not in live:
            verdict, reason = "frozen", _held_by(node, held)
        rows.append(
            Row(
                index=index,
                node=node.name,
                module=module_path(node),
                source=source_line(node),
                operator=operator_name(node.target),
                verdict=verdict,
                gate=decision.gate,
                rule=public_name(decision.rule) if decision.rule and node.name in live else None,
                temperature=decision.temperature if node.name in live else None,
                reason=reason,
            )
        )
    return Ledger(tuple(rows))


def _holders(graph: fx.Graph, decisions: dict[fx.Node, Decision]) -> dict[fx.Node, str]:
    """For every node, the gate nearest downstream that holds something constant."""
    holder: dict[fx.Node, str] = {}
    for node in reversed(list(calls(graph))):
        decision = decisions[node]
        if decision.rule is not None and decision.verdict == "frozen":
            name = f"held constant by {public_name(decision.rule)} at {node.name}"
        elif node.target is STOP_GRADIENT:
            name = f"detached by the model at {node.name}"
        else:
            name = holder.get(node, "")
        for source in input_nodes(node):
            if name:
                holder.setdefault(source, name)
    return holder


def _held_by(node: fx.Node, holders: dict[fx.Node, str]) -> str:
    return holders.get(node, "its value reaches no logit")
