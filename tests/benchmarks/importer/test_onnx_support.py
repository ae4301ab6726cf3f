"""What docs/onnx-support.md says of the node tests of onnx: measured again for some, and the page that says it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
import torch

from benchmarks.importer.__main__ import RESULTS
from benchmarks.importer.files import File
from benchmarks.importer.nodes import NodeTest, Outcome, node_tests, outcome
from benchmarks.importer.page import PAGE, page, sentence
from benchmarks.importer.sweep import read
from fxpullback.importer.operators.table import OPERATORS

EVERY = 12
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def some() -> list[NodeTest]:
    return list(islice(node_tests(), 0, None, EVERY))


@pytest.fixture(scope="module")
def held() -> dict[str, Outcome]:
    return {row["name"]: Outcome(**row) for row in json.loads(RESULTS.read_text())["nodes"]}


def test_node_tests_pass_as_the_page_says(some: list[NodeTest], held: dict[str, Outcome]) -> None:
    found = [outcome(test, pullback=False) for test in some]
    assert [one.name for one in found if not one.passed and held[one.name].passed] == []


def test_nine_in_ten_pass_and_the_others_have_a_reason(held: dict[str, Outcome]) -> None:
    assert len(held) > 900
    assert sum(one.passed for one in held.values()) >= 0.9 * len(held)
    assert all(one.reason for one in held.values() if not one.passed)


def test_pullbacks_of_most_operators_were_compared(held: dict[str, Outcome]) -> None:
    assert len({one.kind for one in held.values() if one.pullback is not None}) > 100


def _of(kind: str) -> Iterator[NodeTest]:
    return (test for test in node_tests() if test.kind == kind)


def test_a_pullback_is_measured() -> None:
    found = outcome(next(_of("Sigmoid")), pullback=True)
    assert found.passed
    assert found.pullback is not None
    assert found.pullback < 1e-9


def test_a_wrong_operator_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {**OPERATORS, "Sigmoid": lambda at, x: torch.tanh(x)}
    monkeypatch.setattr("fxpullback.importer.body.OPERATORS", wrong)
    found = outcome(next(_of("Sigmoid")), pullback=False)
    assert not found.passed
    assert "off by" in found.reason


def test_the_page_is_what_was_measured(held: dict[str, Outcome]) -> None:
    assert PAGE.read_text() == page(list(held.values()), [*read().values()])


def test_the_page_counts_and_says_why() -> None:
    good = Outcome("test_relu", "Relu", True, pullback=2e-16)
    bad = replace(good, name="test_loop", kind="Loop", passed=False, reason="no | loops", pullback=None)
    text = page([good, bad], [File("net", "torch", 3, 2, 1e-7, None, False, "too | large", "timm")])
    assert sentence([good, bad]) == "1 of 2 pass (50.0 %), of 2 operators; the pullbacks of 1 were compared."
    assert "| Relu | 1 | 1 | 2e-16 |" in text
    assert "- test_loop: no / loops" in text
    assert "| file | from | nodes | gates | logits |  |\n|---|---|--:|--:|--:|---|\n" in text
    assert "\n| net | torch | 3 | 2 | 1e-07 | failed |" in text
    assert "- net: too / large" in text
