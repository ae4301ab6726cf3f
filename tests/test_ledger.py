"""What rows of a ledger know, and what they look like in a file, old and new."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from fxpullback import EXACT, REFERENCE, SEMANTIC, RuleSet
from fxpullback.graph.ir import INJECT, ORIGIN, calls
from fxpullback.ledger import Ledger, Row
from fxpullback.rewrite import rewrite
from tests.helpers import graph_of
from tests.networks import NETWORKS, compiled

TOLD = (("self_gated", "neither factor is a function of the other"), ("gated_product", "neither factor is a gate"))
ROW = Row(0, "mul", "mlp", "f.py:1", "aten.mul.Tensor", "exact", True, reason="both factors carry the picture")


@pytest.mark.parametrize("rules", [SEMANTIC, REFERENCE, EXACT], ids=lambda rules: str(rules.name))
@pytest.mark.parametrize("name", NETWORKS)
def test_rows_know_whether_they_are_injected(name: str, rules: RuleSet) -> None:
    rewritten, ledger = rewrite(compiled(name).captured, rules)
    injected = [node.meta[ORIGIN] for node in calls(rewritten.graph) if node.target is INJECT]
    assert injected == [row.node for row in ledger.rows if row.injected]
    assert [row.injected for row in ledger.rows] == [row.rule is not None for row in ledger.rows]


def test_a_gate_behind_a_detach_is_not_injected() -> None:
    rewritten, ledger = rewrite(graph_of(lambda x: x * torch.relu(x).detach(), 4), SEMANTIC)
    assert not any(node.target is INJECT for node in calls(rewritten.graph))
    assert not any(row.injected for row in ledger.rows)


def test_a_row_with_sentences_survives_json() -> None:
    ledger = Ledger(
        (replace(ROW, why_not=TOLD), replace(ROW, index=1), replace(ROW, index=2, injected=True, rule="relu"))
    )
    data = json.loads(ledger.to_json())
    assert Ledger.from_dict(data) == ledger
    assert data["rows"][0]["why_not"] == [list(pair) for pair in TOLD]
    assert ["why_not" in row for row in data["rows"]] == [True, False, False]


def test_a_ledger_of_an_older_file_is_read() -> None:
    old = {
        "index": 1, "node": "relu", "module": "act", "source": "net.py:13", "operator": "aten.relu", "gate": True,
        "verdict": "softened", "rule": "relu", "temperature": 0.6, "pullback_nodes": 3, "reason": None,
    }  # fmt: skip
    linear = {**old, "operator": "aten.add", "gate": False, "verdict": "linear", "rule": None, "temperature": None}
    first, second = Ledger.from_dict({"rows": [old, linear]}).rows
    assert (first.injected, second.injected) == (True, False)
    assert first.why_not == second.why_not == ()


def test_sentences_do_not_change_the_table() -> None:
    assert str(Ledger((replace(ROW, why_not=TOLD),))) == str(Ledger((ROW,)))


def test_ledger_survives_json() -> None:
    _, ledger = rewrite(compiled("mobile").captured, SEMANTIC)
    data = json.loads(ledger.to_json())
    assert Ledger.from_dict(data) == ledger
    assert data["gates"] == data["softened"] + data["frozen"] + data["exact"] == ledger.gates


def test_ledger_prints_at_100_columns() -> None:
    long = Row(
        0,
        "n" * 200,
        "a.very.long.module." * 9,
        "f.py:1",
        "aten.operator" * 5,
        "exact",
        True,
        None,
        None,
        7,
        "why " * 60,
    )
    warm = replace(long, index=12345, verdict="softened", rule="rule" * 20, temperature=123456.789)
    _, ledger = rewrite(compiled("mobile").captured, SEMANTIC)
    for text in (str(ledger), str(Ledger((long,))), str(Ledger((warm,)))):
        assert max(map(len, text.splitlines())) <= 100


def test_sum_of_the_ledger() -> None:
    pb = compiled("mobile")
    verdicts = [row.verdict for row in pb.ledger.rows if row.gate]
    frozen, exact = verdicts.count("frozen"), verdicts.count("exact")
    line = f"{len(verdicts) - exact} of {len(verdicts)} gates softened ({frozen} of them held constant)"
    assert pb.ledger.sum() == line + (f", {exact} kept exact" if exact else "")
    assert str(pb.ledger).endswith(pb.ledger.sum())
    assert "gated_product" in str(pb.ledger)


def test_pullback_nodes_are_counted() -> None:
    pb = compiled("transformer")
    rows = {row.node: row for row in pb.ledger.rows}
    assert all(row.pullback_nodes > 0 for row in rows.values() if row.rule)
    assert sum(row.pullback_nodes for row in rows.values()) <= len(list(calls(pb.step.graph)))
