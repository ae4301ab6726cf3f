"""Which rule each operator gets, and what is said of the others."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import EXACT, REFERENCE, SEMANTIC, RuleSet
from fxpullback.contract.errors import RuleError, UnsupportedGateError
from fxpullback.graph.ir import INJECT, aten, calls, stop_gradient
from fxpullback.ledger import Row
from fxpullback.rewrite import rewrite
from fxpullback.rules import activations
from fxpullback.rules.rule import gate
from tests.helpers import Function, assert_near, draw, graph_of, pulled_back
from tests.networks import NETWORKS, compiled

SETS = {"semantic": SEMANTIC, "reference": REFERENCE, "exact": EXACT}


def rows_of(function: Any, *sizes: int, rules: RuleSet = SEMANTIC) -> dict[str, Row]:
    """Ledger rows by operator."""
    _, ledger = rewrite(graph_of(function, *sizes), rules)
    return {row.operator: row for row in ledger.rows}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_operator_has_a_row_and_every_row_a_reason(name: str) -> None:
    captured = compiled(name).captured
    for rules in SETS.values():
        rewritten, ledger = rewrite(captured, rules)
        assert [row.node for row in ledger.rows] == [node.name for node in calls(captured.graph)]
        assert [row.index for row in ledger.rows] == list(range(len(ledger.rows)))
        for row in ledger.rows:
            assert row.verdict in ("softened", "frozen", "linear", "exact", "constant")
            assert row.rule or row.reason or row.verdict == "linear", row
            assert (row.rule is not None) <= (row.verdict in ("softened", "frozen")), row
            assert row.gate or row.rule is None
        injected = sum(row.rule is not None and row.operator != "getitem" for row in ledger.rows)
        assert sum(node.target is INJECT for node in calls(rewritten.graph)) == injected


def test_input_is_left_alone() -> None:
    captured = graph_of(lambda x: F.gelu(x), 4)
    before = str(captured.graph)
    rewrite(captured, SEMANTIC)
    assert str(captured.graph) == before


def test_verdicts() -> None:
    weight = draw(6, 6)

    def model(x: Tensor) -> Tensor:
        fixed = torch.sin(torch.ones(6, dtype=torch.float64))
        kept = F.layer_norm(torch.exp(F.relu(x @ weight) + fixed), [6])
        return kept * torch.sigmoid(kept.mean(1, keepdim=True) @ weight[:1])

    rows = rows_of(model, 6)
    expected = {
        "aten.relu": ("softened", "relu"), "aten.native_layer_norm": ("frozen", "layer_norm"),
        "aten.mul.Tensor": ("frozen", "gated_product"), "aten.exp": ("exact", None),
        "aten.add.Tensor": ("linear", None),
        "aten.sin": ("constant", None), "aten.sigmoid": ("frozen", None), "aten.mean.dim": ("frozen", None),
    }  # fmt: skip
    assert {key: (rows[key].verdict, rows[key].rule) for key in expected} == expected
    assert rows["aten.sin"].reason == "no path from the input"
    assert re.fullmatch(r"held constant by gated_product at mul\w*", rows["aten.sigmoid"].reason or "")


CHOICES: dict[str, tuple[Any, str]] = {
    "where": (lambda x: torch.where(x > 1, x, 0.0), "aten.where.ScalarOther"),
    "product-with-a-comparison": (lambda x: x * (x > 1), "aten.mul.Tensor"),
    "masked_fill": (lambda x: x.masked_fill(x < 1, 0.0), "aten.masked_fill.Scalar"),
    "order": (lambda x: x.gather(1, x.argsort(1)), "aten.gather"),
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_by_the_input_is_a_gate_kept_exact(name: str) -> None:
    """A comparison that is no ReLU is not listed as linear."""
    model, operator = CHOICES[name]
    rows = rows_of(model, 4)
    assert (rows[operator].verdict, rows[operator].gate) == ("exact", True)
    assert (rows[operator].reason or "").startswith("a choice by comparison or order")
    assert all(row.reason == "its derivative is zero" for row in rows.values() if row.verdict == "constant")


def test_a_choice_by_constants_is_linear() -> None:
    mask = draw(4) > 0
    assert rows_of(lambda x: torch.where(mask, x, 0.0), 4)["aten.where.ScalarOther"].verdict == "linear"


def test_model_own_detach_is_listed() -> None:
    rows = rows_of(lambda x: x * torch.sin(x).detach(), 4)
    assert rows["aten.sin"].verdict == "frozen"
    assert (rows["aten.sin"].reason or "").startswith("detached by the model")


class Unknown(nn.Module):
    """Two operators that no rule covers, in modules of their own."""

    class Act(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.erfinv(torch.tanh(x) * 0.9)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(4, 4), Unknown.Act())
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.atan(self.head(self.stem(x)))
        return result


def test_unsupported_gates_are_named_all_at_once_and_the_advice_works() -> None:
    model, example = Unknown().double().eval(), torch.zeros(1, 4).double()
    with pytest.raises(UnsupportedGateError) as raised:
        fxpullback.compile(model, example)
    message = str(raised.value)
    assert "no rule for 2 operators" in message
    assert re.search(r"aten\.erfinv at stem\.1 \(test_rewrite\.py:\d+\)", message)
    assert re.search(r"aten\.atan at node \w+ \(test_rewrite\.py:\d+\)", message)
    advice = re.search(r"Pass keep_exact=\[(.*)\] to use their exact derivatives, or add a rule: docs/", message)
    assert advice is not None
    names = [name.strip(' "') for name in advice[1].split(",")]
    assert names == ["atan", "erfinv"]
    pb = fxpullback.compile(model, example, keep_exact=names, target="cotangent")
    kept = {row.operator: row for row in pb.ledger.rows if row.verdict == "exact"}
    assert kept["aten.erfinv"].reason == "asked for: keep_exact('erfinv')"
    x, u = draw(3, 4), draw(3, 2, seed=1)
    assert_near(pb(x, u)[1], pulled_back(lambda z: pb.rewritten(z)[0], x, u))


def test_two_gates_taken_out_of_the_set_are_both_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).double().eval()
    fewer = SEMANTIC.with_temperature(gelu=0.5).without("gelu", "relu")
    with pytest.raises(UnsupportedGateError) as raised:
        fxpullback.compile(model, torch.zeros(1, 4).double(), rules=fewer)
    message = str(raised.value)
    assert "no rule for 2 operators" in message
    assert re.search(r"aten\.gelu at 1 \(", message)
    assert re.search(r"aten\.relu at 3 \(", message)
    assert 'keep_exact=["gelu", "relu"]' in message
    with pytest.raises(RuleError, match=r"nothing called 'gleu' is a rule of this set .* Did you mean 'gelu'"):
        SEMANTIC.without("gleu")


def test_one_unsupported_gate() -> None:
    with pytest.raises(
        UnsupportedGateError, match=r"^no rule for aten\.atan at .*\nPass keep_exact=\[\"atan\"\] to use its"
    ):
        rewrite(graph_of(torch.atan, 4), SEMANTIC)


def _zeta(x: Tensor) -> Tensor:
    """torch has no derivative of it."""
    return torch.special.zeta(x.abs() + 2, x.abs() + 2)  # type: ignore[no-any-return]


def _margin(x: Tensor) -> Tensor:
    """Its derivative in torch is one operator, which is no forward operator."""
    wanted = torch.tensor([[0, 1, -1, 0]]).expand(x.shape[0], 4)
    return x * F.multilabel_margin_loss(x, wanted, reduction="none").unsqueeze(1)


@pytest.mark.parametrize("part", [_zeta, _margin])
def test_nothing_is_advised_that_then_fails(part: Function) -> None:
    for function, message in (
        (part, r"It has no derivative"),
        (lambda x: torch.atan(x) + part(x), r"at .* has no der"),
    ):
        with pytest.raises(UnsupportedGateError, match=message) as raised:
            rewrite(graph_of(function, 4), SEMANTIC)
        assert "keep_exact" not in str(raised.value)


@pytest.mark.parametrize("rules", ["reference", "exact"])
def test_other_sets_keep_what_they_do_not_know(rules: str) -> None:
    row = rows_of(torch.atan, 4, rules=SETS[rules])["aten.atan"]
    assert row.verdict == "exact"
    assert row.reason


def test_keep_exact_by_rule_and_by_operator() -> None:
    for name in ("gelu", "aten.gelu", "aten.gelu.default", "aten::gelu"):
        row = rows_of(lambda x: F.gelu(x), 4, rules=SEMANTIC.keep_exact(name))["aten.gelu"]
        assert (row.verdict, row.rule, row.reason) == ("exact", None, "asked for: keep_exact('gelu')")
    one = rows_of(lambda x: F.max_pool1d(F.relu(x), 2), 2, 4, rules=SEMANTIC.keep_exact("max_pool"))
    assert one["aten.max_pool1d"].verdict == "exact"
    assert one["aten.relu"].rule == "relu"


def test_keep_exact_attention_covers_both_spellings() -> None:
    def fused(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)

    def written(x: Tensor) -> Tensor:
        return torch.softmax(x @ x.transpose(1, 2), -1) @ x

    for model in (fused, written):
        graph = graph_of(model, 4, 3)
        assert any(row.rule == "attention" for row in rewrite(graph, SEMANTIC)[1].rows)
        kept, ledger = rewrite(graph, SEMANTIC.keep_exact("attention"))
        assert not any(row.rule for row in ledger.rows)
        x, ct = draw(2, 4, 3), draw(2, 12, seed=1)
        assert_near(pulled_back(lambda z, kept=kept: kept(z)[0], x, ct), pulled_back(model, x, ct))  # type: ignore[misc]


def test_temperatures_by_rule_name() -> None:
    rules = SEMANTIC.with_temperature(relu=0.25, attention=2.0)
    assert rows_of(F.relu, 4, rules=rules)["aten.relu"].temperature == 0.25
    assert rows_of(F.silu, 4, rules=rules)["aten.silu"].temperature == 1.6
    again = rules.with_temperature(silu=1.0)
    assert again.temperatures == {"relu": 0.25, "attention": 2.0, "silu": 1.0}
    assert not SEMANTIC.temperatures


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: SEMANTIC.with_temperature(relue=0.4), r"nothing called 'relue'.*Did you mean 'relu'\?"),
        (lambda: SEMANTIC.with_temperature(layer_norm=0.4), "nothing called 'layer_norm' has a temperature"),
        (lambda: SEMANTIC.with_temperature(relu=0.0), "temperature of relu is 0.0; give a positive number"),
        (lambda: SEMANTIC.with_temperature(relu=float("nan")), "positive number"),
        (lambda: SEMANTIC.with_temperature(relu="hot"), "'hot'; give a positive number"),  # type: ignore[arg-type]
        (lambda: SEMANTIC.keep_exact("atention"), r"nothing called 'atention'.*Did you mean 'attention'\?"),
        (lambda: EXACT.with_temperature(relu=0.4), "no rules"),
    ],
)
def test_unknown_names_and_bad_temperatures(ask: Any, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        ask()


def test_two_rules_for_one_operator_are_an_error() -> None:
    @gate(aten.relu.default, temperature=1.0)
    def another(x: Tensor, *, temperature: float) -> Tensor:
        return x

    with pytest.raises(RuleError, match=r"two rules for aten\.relu\.default: relu and another"):
        RuleSet("mine", rules=(activations.relu, another))


def test_rule_sets_are_values() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SEMANTIC.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        SEMANTIC.temperatures["relu"] = 1.0  # type: ignore[index]
    with pytest.raises(TypeError):
        SEMANTIC.exact[aten.relu.default] = "why"  # type: ignore[index]
    mine = {"relu": 1.0}
    rules = RuleSet("mine", rules=(activations.relu,), temperatures=mine)
    mine["relu"] = 2.0
    assert rules.temperatures == {"relu": 1.0}


def test_a_rule_of_your_own() -> None:
    @gate(aten.atan.default, temperature=0.5)
    def atan(x: Tensor, *, temperature: float) -> Tensor:
        return x * stop_gradient(torch.sigmoid(x / temperature))

    rules = dataclasses.replace(SEMANTIC, rules=(*SEMANTIC.rules, atan))
    graph, ledger = rewrite(graph_of(torch.atan, 4), rules.with_temperature(atan=2.0))
    assert [row.temperature for row in ledger.rows if row.rule == "atan"] == [2.0]
    x, ct = draw(2, 4), draw(2, 4, seed=1)
    assert_near(pulled_back(lambda z: graph(z)[0], x, ct), ct * torch.sigmoid(x / 2))


def test_reference_has_the_authors_six_rules() -> None:
    assert set(REFERENCE.rule_names()) == {"relu", "silu", "gelu", "max_pool", "layer_norm", "attention"}
    rows = rows_of(lambda x: F.hardswish(F.max_pool1d(x, 2)), 2, 4, rules=REFERENCE)
    assert {row.verdict for key, row in rows.items() if key in ("aten.max_pool1d", "aten.hardswish")} == {"exact"}
    assert rows["aten.hardswish"].reason == "the authors' code has no rule for it"


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.where(x > 1, x, 0.0),
        lambda x: torch.where(x > 0, 2 * x, 0.0),
        lambda x: torch.where(x > 0, x, -1.0),
        lambda x: torch.where(x.flip(1) > 0, x, 0.0),
        lambda x: x * (x.flip(1) > 0),
        lambda x: torch.where(x.abs() > 0.5, x, 0.1 * x),
        lambda x: torch.where(x.abs() > 0.5, x - torch.sign(x) * 0.4, 0.0),
    ],
)
def test_a_choice_that_is_no_threshold_keeps_its_exact_derivative(function: Callable[[Tensor], Tensor]) -> None:
    verdicts = {row.verdict for row in rewrite(graph_of(function, 4), SEMANTIC)[1].rows}
    assert "softened" not in verdicts
    assert "exact" in verdicts


def test_tensors_that_a_forward_fills_are_constants() -> None:
    """As a shifted-window mask is made: zeros of the input's type, numbered slice by slice."""

    def model(x: Tensor) -> Tensor:
        mask = x.new_zeros((4, 4))
        mask[0:2, 1:3] = 1.5
        mask[2:, :] = 2
        filled = x.new_full((4,), 3.0) + x.new_ones((4,)) * mask.sum(0)
        return x * filled

    rows = rewrite(graph_of(model, 4), SEMANTIC)[1].rows
    assert {row.verdict for row in rows if row.operator != "aten.mul.Tensor"} == {"constant"}
    assert [row.verdict for row in rows if row.operator == "aten.mul.Tensor"][-1] == "linear"
    pb = fxpullback.compile(Scaled(model).double().eval(), draw(1, 4))
    x, u = draw(3, 4), draw(3, 4, seed=1)
    found = pb.step(x, u)[1]
    assert_near(found, u * model(torch.ones_like(x)))


class Scaled(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
