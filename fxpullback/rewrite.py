"""Stage 2: every gate becomes `inject(primal, soft)`; the ledger says what happened to every operator.

The rewritten graph computes the model's logits bit for bit, and autograd through it gives the soft pullback.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from fxpullback.contract.errors import DifferentiateError, FixedSizeError
from fxpullback.graph.builder import Builder
from fxpullback.graph.compilation import Compilation
from fxpullback.graph.ir import (
    AUTHORED,
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
    module_path,
    node_argument,
    operator_name,
    outputs,
    schema_arguments,
    source_line,
    where,
)
from fxpullback.graph.module import Graph
from fxpullback.graph.operators import OPERATORS
from fxpullback.graph.rebuild import Site, rebuild, tidy
from fxpullback.graph.value import Value
from fxpullback.ledger import Ledger, Row
from fxpullback.rules.blocking import REASON, blocking
from fxpullback.rules.decision import Decision, between, decide
from fxpullback.rules.patterns.flow import Flow
from fxpullback.rules.patterns.pattern import Match
from fxpullback.rules.ruleset import RuleSet
from fxpullback.vjp import TABLE, VJPTable


def rewrite(
    captured: fx.GraphModule, rules: RuleSet, compilation: Compilation | None = None, vjps: VJPTable = TABLE
) -> tuple[Graph, Ledger]:
    """Rewrite a captured graph to the injected form.

    Args:
        captured: what `capture` returns.
        rules: the rule set.
        compilation: what the stages of one compilation share.
        vjps: the VJP rules, which say what is linear.

    Returns:
        The rewritten graph, runnable and differentiable as it stands, and its ledger.

    Raises:
        UnsupportedGateError: nonlinear operators without a rule, all of them named at once.
        RuleError: the rules were calibrated on another model.
    """
    operators = compilation.operators if compilation else OPERATORS
    decisions = decide(captured.graph, rules, vjps, operators)
    everywhere = _emit(captured, decisions, compilation)
    live = _live_origins(everywhere.graph, decisions, vjps)
    stops = blocking(captured.graph, live, Flow(captured.graph, operators), vjps)
    notes = tuple(compilation.notes) if compilation else ()
    rows = _rows(captured.graph, decisions, live, stops)
    return _without_idle(everywhere, live), Ledger(rows, rules.calibrated_on, notes)


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
        if site.node.target is AUTHORED:
            primal, soft, _ = site.arguments()
            return site.builder.call(INJECT, (primal, soft), {})
        if decision is None or decision.rule is None:
            return NotImplemented
        site.env[site.node] = site.copy()
        return _inject(site.builder, site.node, decision, site.env, captured.graph)

    return rebuild(captured, emit, compilation)


def _inject(
    builder: Builder, node: fx.Node, decision: Decision, env: dict[fx.Node, Any], graph: fx.Graph
) -> Value | tuple[Value, ...]:
    rule = decision.rule
    assert rule is not None
    given = {"temperature": decision.temperature, "noise": decision.noise}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
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


def _pattern_arguments(builder: Builder, match: Match, env: dict[fx.Node, Any], graph: fx.Graph) -> dict[str, Any]:
    values = {k: env[v] if isinstance(v, fx.Node) else v for k, v in match.arguments.items()}
    for name, (start, end) in match.replays.items():
        values[name] = _replay(builder, graph, start, end, env)
    return values


def _replay(
    builder: Builder, graph: fx.Graph, start: fx.Node, end: fx.Node, env: dict[fx.Node, Any]
) -> Callable[[Value], Value]:
    """A function that computes `end` anew from another value at `start`, by the model's own operators."""
    nodes = between(graph, start, end)

    def run(value: Value) -> Value:
        if value is env[start]:
            return env[end]  # type: ignore[no-any-return]
        local = {**env, start: value}
        for node in nodes:
            if node.target is GETITEM:
                local[node] = local[arg(node, 0)][arg(node, 1)]
            else:
                args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: local[n])
                local[node] = builder.call(node.target, args, kwargs)
        result: Value = local[end]
        return result

    return run


def _live_origins(graph: fx.Graph, decisions: dict[fx.Node, Decision], vjps: VJPTable) -> set[str]:
    """Names of captured operators that some cotangent of the logits reaches."""
    sources = set(depends_on(graph, [explained(graph)]))
    live: set[fx.Node] = set()
    waiting = list(outputs(graph))
    while waiting:
        node = waiting.pop()
        if node in live or node not in sources or not is_float_tensor(node):
            continue
        live.add(node)
        if node.target is STOP_GRADIENT or (node.target in vjps and vjps[node.target].kind == "constant"):
            continue
        waiting += [node_argument(node, 1)] if node.target is INJECT else input_nodes(node)
    names = {str(n.meta[ORIGIN]) for n in live if ORIGIN in n.meta and n.target is not STOP_GRADIENT}
    gates = {node for node, d in decisions.items() if d.rule is not None and node.name in names}
    return names | {n.name for n in decisions if n.target is GETITEM and n.args[0] in gates and n.args[1] == 0}


def _rows(graph: fx.Graph, decisions: dict[fx.Node, Decision], live: set[str], stops: set[fx.Node]) -> tuple[Row, ...]:
    held = _holders(graph, decisions, stops)
    rows = []
    for index, node in enumerate(calls(graph)):
        decision = decisions[node] if node not in stops else Decision("blocking", True, reason=REASON)
        verdict, reason = decision.verdict, decision.reason
        injected = (decision.rule is not None or node.target is AUTHORED) and node.name in live
        if verdict not in ("constant", "blocking") and node.name not in live:
            verdict, reason = "frozen", (reason if decision.verdict == "linear" else None) or _held_by(node, held)
        rows.append(
            Row(
                index=index,
                node=node.name,
                module=module_path(node),
                source=source_line(node),
                operator=operator_name(node.target),
                verdict=verdict,
                gate=decision.gate,
                rule=decision.rule.public if injected and decision.rule else None,
                temperature=decision.temperature if injected else None,
                noise=decision.noise.name if injected and decision.noise else None,
                reason=reason,
                injected=injected,
                why_not=decision.why_not if verdict == "exact" else (),
            )
        )
    return tuple(rows)


def _holders(graph: fx.Graph, decisions: dict[fx.Node, Decision], stops: set[fx.Node]) -> dict[fx.Node, str]:
    """For every node, the gate nearest downstream that holds something constant."""
    holder: dict[fx.Node, str] = {}
    for node in reversed(list(calls(graph))):
        decision = decisions[node]
        if decision.rule is not None and (decision.verdict == "frozen" or decision.match is not None):
            name = f"held constant by {decision.rule.public} at {node.name}"
        elif node in stops:
            name = f"blocked by {node.name}, whose derivative is zero"
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
