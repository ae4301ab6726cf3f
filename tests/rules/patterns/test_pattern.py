"""Patterns as values: what they refuse, which of them comes first, and patterns of one's own."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.nn import functional as F

from fxpullback import EXACT, REFERENCE, SEMANTIC, calibrate
from fxpullback.contract.errors import RuleError
from fxpullback.graph.ir import aten, calls, stop_gradient
from fxpullback.ledger import Ledger
from fxpullback.rewrite import rewrite
from fxpullback.rules import Flow, Match, Pattern, WhyNot, gate
from fxpullback.rules.patterns import PATTERNS
from fxpullback.rules.rule import Rule
from tests.helpers import Flat, assert_near, draw, graph_of, pulled_back


@gate(temperature=0.5)
def root_gated(x: Tensor, gate_of: Callable[[Tensor], Tensor], *, temperature: float) -> Tensor:
    return x * stop_gradient(gate_of(x / temperature))


def find_root_gated(node: fx.Node, flow: Flow) -> Match | WhyNot | None:
    """x * sqrt(sigmoid(x))."""
    factors = flow.two_factors(node)
    for x, root in (factors, factors[::-1]) if factors else ():
        walk = flow.walk(root, {aten.sqrt.default, aten.sigmoid.default}, {x}.__contains__, 3)
        if walk.stop is None and len(walk.passed) == 2:
            return Match({"x": x}, {"gate_of": (x, root)})
    return WhyNot("no factor is the root of a sigmoid of the other")


MINE = Pattern(root_gated, find_root_gated, at=(aten.mul.Tensor,))


def model(x: Tensor) -> Tensor:
    return x * torch.sqrt(torch.sigmoid(x))


def ledger_of(function: Callable[[Tensor], Any], *sizes: int, rules: Any = SEMANTIC) -> Ledger:
    return rewrite(graph_of(function, *sizes), rules)[1]


@pytest.mark.parametrize(
    "rules", [SEMANTIC.with_patterns(MINE), dataclasses.replace(SEMANTIC, patterns=(MINE, *SEMANTIC.patterns))]
)
def test_a_pattern_of_your_own(rules: Any) -> None:
    assert [row.verdict for row in ledger_of(model, 4).rows if row.operator == "aten.mul.Tensor"] == ["exact"]
    graph, ledger = rewrite(graph_of(model, 4), rules.with_temperature(root_gated=2.0))
    (row,) = (row for row in ledger.rows if row.operator == "aten.mul.Tensor")
    assert (row.verdict, row.rule, row.temperature, row.injected) == ("softened", "root_gated", 2.0, True)
    x, ct = draw(2, 4), draw(2, 4, seed=1)
    assert_near(pulled_back(lambda z: graph(z)[0], x, ct), ct * torch.sigmoid(x / 2).sqrt())


def test_a_pattern_of_your_own_is_calibrated() -> None:
    rules = calibrate(Flat(model).eval(), draw(16, 4), rules=SEMANTIC.with_patterns(MINE), spread=0.5)
    assert rules.calibrated["mul"] == pytest.approx(0.5 * float(draw(16, 4).std(correction=0)), rel=1e-6)


def test_your_own_pattern_comes_first() -> None:
    @gate(verdict="frozen")
    def mine(x: Tensor, held: Tensor) -> Tensor:
        return x * stop_gradient(held)

    def find(node: fx.Node, flow: Flow) -> Match | None:
        factors = flow.two_factors(node)
        return None if factors is None else Match({"x": factors[0], "held": factors[1]})

    rules = SEMANTIC.with_patterns(Pattern(mine, find, at=(aten.mul.Tensor,)))
    assert "mine" in [row.rule for row in ledger_of(lambda x: x * torch.sigmoid(x), 4, rules=rules).rows]
    assert rules.name == "semantic with mine"
    assert rules.patterns[1:] == SEMANTIC.patterns
    assert "mine" in rules.rule_names()


def test_further_rules() -> None:
    @gate(aten.atan.default, temperature=0.5)
    def atan(x: Tensor, *, temperature: float) -> Tensor:
        return x

    rules = SEMANTIC.with_rules(atan)
    assert (rules.name, rules.rules) == ("semantic with atan", (*SEMANTIC.rules, atan))
    assert "atan" in [row.rule for row in ledger_of(torch.atan, 4, rules=rules).rows]
    assert SEMANTIC.with_rules() == SEMANTIC.with_patterns() == SEMANTIC
    with pytest.raises(RuleError, match=r"two rules for aten\.atan\.default: atan and atan"):
        rules.with_rules(atan)


def untyped(value: object) -> Any:
    """What the types would refuse already."""
    return value


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda: SEMANTIC.with_rules(untyped(torch.relu)),
            r"<built-in .*relu.*> is no rule; make one of a function with @gate",
        ),
        (lambda: SEMANTIC.with_rules(untyped(MINE)), "the pattern root_gated is no rule"),
        (
            lambda: SEMANTIC.with_rules(root_gated),
            "rule root_gated has no operator: name those .* or give it to a Pattern",
        ),
        (
            lambda: SEMANTIC.with_patterns(untyped(root_gated)),
            r"the rule root_gated is no pattern; .*Pattern\(rule, find, at=",
        ),
        (lambda: dataclasses.replace(SEMANTIC, patterns=(untyped(root_gated),)), "the rule root_gated is no pattern"),
        (lambda: SEMANTIC.with_patterns(untyped(find_root_gated)), "<function find_root_gated .* is no pattern"),
        (
            lambda: Pattern(untyped(torch.relu), find_root_gated, (aten.mul.Tensor,)),
            "the rule of a pattern is <built-in",
        ),
        (
            lambda: Pattern(root_gated, untyped("find"), (aten.mul.Tensor,)),
            r"pattern root_gated: find is 'find'; give a function",
        ),
        (lambda: Pattern(root_gated, find_root_gated, ()), "pattern root_gated looks at no operator"),
        (lambda: Pattern(root_gated, find_root_gated, ("mul",)), "pattern root_gated: 'mul' is no operator"),
        (
            lambda: Pattern(root_gated, find_root_gated, (aten.mul,)),
            r"pattern root_gated: aten\.mul stands for several operators; name one of its overloads: Tensor, Scalar",
        ),
        (
            lambda: EXACT.with_rules(gate(aten.relu)(lambda x: x)),
            r"aten\.relu stands for several .* overloads: default",
        ),
    ],
)
def test_what_is_no_rule_and_no_pattern_is_refused(ask: Callable[[], Any], message: str) -> None:
    with pytest.raises(RuleError, match=message):
        ask()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda x: True,
            r"pattern root_gated answered True for aten\.mul\.Tensor at .*; answer with a Match, a WhyNot",
        ),
        (
            lambda x: Match({"x": x}),
            r"gives x, temperature; the rule takes x, gate_of, temperature: missing a required argument: 'gate_of'",
        ),
        (lambda x: Match({"x": x, "slope": 1}, {"gate_of": (x, x)}), "gives x, slope, gate_of, temperature.*'slope'"),
        (
            lambda x: Match({"x": 1.0}, {"gate_of": (x, x)}),
            r"names no node x, the gate's input, which calibrate measures",
        ),
    ],
)
def test_an_answer_that_the_rule_cannot_take_is_refused(answer: Callable[[fx.Node], Any], message: str) -> None:
    pattern = Pattern(root_gated, lambda node, flow: answer(node.args[0]), at=(aten.mul.Tensor,))  # type: ignore[arg-type]
    with pytest.raises(RuleError, match=message):
        rewrite(graph_of(model, 4), SEMANTIC.with_patterns(pattern))


def test_a_pattern_is_asked_about_active_nodes_of_its_operators_alone() -> None:
    asked: list[fx.Node] = []

    def find(node: fx.Node, flow: Flow) -> None:
        asked.append(node)

    captured = graph_of(lambda x: x * torch.exp(torch.ones(4).double() * 2) + x.exp(), 4)
    flow = Flow(captured.graph)
    for node in captured.graph.nodes:
        assert Pattern(root_gated, find, at=(aten.mul.Tensor,)).match(node, flow) is None
    assert [node.target for node in asked] == [aten.mul.Tensor]
    assert set(asked) <= flow.active


def test_public_names_belong_to_the_rules() -> None:
    public = {
        rule.name: rule.public for rule in (*SEMANTIC.all_rules, *REFERENCE.all_rules) if rule.public != rule.name
    }
    assert public == {
        "attention_by_hand": "attention", "silu_by_hand": "silu", "relu_by_hand": "relu",
        "shrink_by_hand": "softshrink", "max_pool_zero_padding": "max_pool",
    }  # fmt: skip
    assert {name for name in public.values() if name not in SEMANTIC.rule_names()} == set()
    assert Rule("r", torch.relu).public == "r"


KEPT: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "silu": (lambda x: x * torch.sigmoid(x), "aten.mul.Tensor"),
    "self_gated": (lambda x: x * torch.sigmoid(1.7 * x), "aten.mul.Tensor"),
    "gated_product": (lambda x: x * torch.sigmoid(x.mean(1, keepdim=True)), "aten.mul.Tensor"),
    "relu": (lambda x: torch.where(x > 0, x, 0.0), "aten.where.ScalarOther"),
    "normalization_by_hand": (lambda x: x / x.norm(dim=1, keepdim=True), "aten.div.Tensor"),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_gate_that_is_kept_exact_goes_to_no_other_pattern(name: str) -> None:
    function, operator = KEPT[name]
    row = [row for row in ledger_of(function, 4, rules=SEMANTIC.keep_exact(name)).rows if row.operator == operator][-1]
    assert (row.verdict, row.rule, row.injected) == ("exact", None, False)
    assert row.reason == f"asked for: keep_exact({name!r})"
    assert row.why_not == ()


@pytest.mark.parametrize("name", KEPT)
def test_a_gate_that_ends_at_an_operator_kept_exact_is_exact(name: str) -> None:
    function, operator = KEPT[name]
    key = operator.split(".")[1]
    rows = ledger_of(function, 4, rules=SEMANTIC.keep_exact(key)).rows
    row = [row for row in rows if row.operator == operator][-1]
    assert (row.verdict, row.rule, row.injected) == ("exact", None, False)
    assert row.reason == f"asked for: keep_exact({key!r})"


def test_a_gate_of_a_negative_value_is_a_gate_of_that_value() -> None:
    """The number that a gate's value is a multiple of its base by is written as a product; a sign is none."""

    def gated(x: Tensor) -> Any:
        z = -x
        return z * torch.sigmoid(z)

    assert [row.rule for row in ledger_of(gated, 4).rows if row.rule] == ["silu"]


@pytest.mark.parametrize("name", ["silu", "self_gated"])
def test_a_gate_that_is_taken_out_goes_to_no_other_pattern(name: str) -> None:
    """A set without SiLU has no rule of another temperature for it, and no gated product."""
    function, operator = KEPT[name]
    row = [row for row in ledger_of(function, 4, rules=SEMANTIC.without(name)).rows if row.operator == operator][-1]
    assert (row.verdict, row.rule) == ("exact", None)
    assert dict(row.why_not)["gated_product"].startswith("one factor is a function of the other alone")


def test_the_softmax_of_an_attention_kept_exact_is_asked_for_too() -> None:
    def attend(x: Tensor) -> Tensor:
        return torch.softmax(x @ x.transpose(1, 2), -1) @ x

    rows = ledger_of(attend, 4, 3, rules=SEMANTIC.keep_exact("attention")).rows
    assert {row.reason for row in rows if row.operator == "aten.softmax.int"} == {"asked for: keep_exact('attention')"}
    last = [row for row in rows if row.operator == "aten.matmul"][-1]
    assert last.reason == "asked for: keep_exact('attention')"


def test_the_later_of_two_softmaxes_routes() -> None:
    """softmax(a) @ softmax(b): the values are what the first one gives."""

    def two(x: Tensor) -> Tensor:
        first = torch.softmax(x, -1)
        return first @ torch.softmax(x.transpose(1, 2) * 2, -1)

    captured = graph_of(two, 4, 4)
    flow = Flow(captured.graph)
    (product,) = (node for node in calls(captured.graph) if node.target is aten.matmul.default)
    found = SEMANTIC.pattern_for(product, flow)
    assert found is not None
    assert found[1].replays["routing"][1] is product.args[1]


def test_order_of_the_patterns() -> None:
    """Attention, thresholds, gated products, normalisations and the centrings in front of them."""
    names = [pattern.rule.name for pattern in PATTERNS]
    assert names == [
        "attention_by_hand", "relu_by_hand", "shrink_by_hand", "silu_by_hand", "self_gated", "gated_product",
        "normalization_by_hand", "centring_by_hand",
    ]  # fmt: skip
    both = ledger_of(lambda x: torch.sigmoid(x[:, :2]) * x[:, 2:].square().mean(1, keepdim=True).rsqrt(), 4)
    assert "gated_product" in [row.rule for row in both.rows]
    both = ledger_of(lambda x: (lambda gate: gate * (gate > 0).to(gate.dtype))(torch.sigmoid(x)), 4)
    assert "relu" in [row.rule for row in both.rows]


def test_the_parts_of_a_gate_are_held_constant_by_it() -> None:
    rows = {row.operator: row for row in ledger_of(lambda x: x * torch.tanh(F.softplus(x)), 4).rows}
    assert {rows[name].verdict for name in ("aten.tanh", "aten.softplus")} == {"frozen"}
    for name in ("aten.tanh", "aten.softplus"):
        assert re.fullmatch(r"held constant by self_gated at mul\w*", rows[name].reason or "")
