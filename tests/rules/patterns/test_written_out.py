"""Gates written as several operators, through capture and rewrite."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import fx

from fxpullback import EXACT, SEMANTIC
from fxpullback.ledger import Ledger
from fxpullback.rewrite import rewrite
from fxpullback.rules.rule import Rule
from tests.helpers import Flat, assert_near, draw, graph_of, pulled_back
from tests.rules.patterns.case import Case
from tests.rules.patterns.written_out import CASES, PRODUCTS

AT = [(case, t) for case in CASES for t in case.temperatures]


@functools.cache  # the stages leave their input alone
def captured(case: Case) -> fx.GraphModule:
    return graph_of(case.model, *case.sizes)


def rule_of(case: Case) -> Rule:
    (rule,) = (pattern.rule for pattern in SEMANTIC.patterns if pattern.rule.name == case.rule)
    return rule


def rewritten(case: Case, temperature: float) -> tuple[fx.GraphModule, Ledger]:
    rule = rule_of(case)
    warm = {} if rule.temperature is None else {rule.public: temperature}
    return rewrite(captured(case), SEMANTIC.with_temperature(**warm))


@pytest.mark.parametrize(("case", "temperature"), AT, ids=[f"{case.name}-T{t:g}" for case, t in AT])
def test_soft_pullback_is_that_of_the_oracle(case: Case, temperature: float) -> None:
    graph, ledger = rewritten(case, temperature)
    rule = rule_of(case)
    taken = [row for row in ledger.rows if row.rule == rule.public]
    assert len(taken) == case.gates, str(ledger)
    assert all(row.temperature == (None if rule.temperature is None else temperature) for row in taken)
    x = draw(3, *case.sizes, seed=5)
    model = Flat(case.model)
    assert torch.equal(graph(x)[0], model(x))
    ct = draw(*model(x).shape, seed=6)
    expected = pulled_back(lambda z: case.oracle(z, temperature), x, ct)
    plain = pulled_back(model, x, ct)
    assert float((expected - plain).abs().max()) > 1e-3 * float(plain.abs().max()), "the oracle is the gradient"
    assert_near(pulled_back(lambda z: graph(z)[0], x, ct), expected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_exact_is_autograd(case: Case) -> None:
    graph, ledger = rewrite(captured(case), EXACT)
    assert not any(row.rule for row in ledger.rows)
    x = draw(2, *case.sizes, seed=5)
    model = Flat(case.model)
    ct = draw(*model(x).shape, seed=6)
    assert_near(pulled_back(lambda z: graph(z)[0], x, ct), pulled_back(model, x, ct))


@pytest.mark.parametrize("name", PRODUCTS)
def test_product_of_two_pictures_is_no_gate(name: str) -> None:
    model, oracle = PRODUCTS[name]
    graph, ledger = rewrite(graph_of(model, 6, 4), SEMANTIC)
    products = [row for row in ledger.rows if row.operator == "aten.mul.Tensor"]
    assert [row.verdict for row in products] == ["exact"]
    assert products[0].reason == "both factors carry the picture"
    x = draw(3, 6, 4, seed=5)
    ct = draw(*Flat(model)(x).shape, seed=6)
    assert_near(pulled_back(lambda z: graph(z)[0], x, ct), pulled_back(oracle, x, ct))


def test_softmax_that_feeds_no_product_is_listed() -> None:
    _, ledger = rewrite(graph_of(lambda x: torch.softmax(x, 1), 6), SEMANTIC)
    row = next(row for row in ledger.rows if row.operator == "aten.softmax.int")
    assert (row.verdict, row.reason) == ("exact", "a softmax that feeds no matrix product or gated product")
