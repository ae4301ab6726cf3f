"""Models beside classifiers of pictures: torch's own gradient, the file, and the page that says so."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import fxpullback
from benchmarks.kinds.audio import audio_cases
from benchmarks.kinds.case import POSITIONS, at_positions
from benchmarks.kinds.cases import case, cases
from benchmarks.kinds.measure import BOUND, EAGER, ROUNDS, compared, examples, measure
from benchmarks.kinds.page import RESULTS, of
from benchmarks.kinds.tasks import task_cases
from benchmarks.rows import Row, read
from fxpullback.export import to_onnx
from tests.helpers import assert_near

pytest.importorskip("transformers", reason="most of these models are those of transformers")

OK = Row(
    "text:Bert", "Bert", 9, (3, 15), "ok", gates=3, softened=1, frozen=2, nodes=20, model_nodes=10,
    errors={"graph": 1e-15, "ort1": 1e-6, "ort3": None, EAGER: 2e-15}, cpu_seconds={"compile": 2.0, "export": 1.0},
)  # fmt: skip
SOME = [
    "audio:wavlm",
    "task:lraspp_mobilenet_v3_large",
]
ALL = bool(os.environ.get("FXPULLBACK_ALL"))


@pytest.mark.parametrize("spec", [one.spec for one in (*audio_cases(), *task_cases())] if ALL else SOME)
def test_exact_is_the_gradient_of_the_model_itself(spec: str) -> None:
    row = read(RESULTS).get(spec)
    if row is not None and row.status != "ok":
        pytest.skip(f"docs/support.md lists it as not passing: {row.reason}")
    error, _, _ = compared(case(spec))
    assert error < BOUND


def test_the_comparison_notices_a_wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    one = case("text:DistilBertForSequenceClassification")
    compile = fxpullback.compile
    monkeypatch.setattr(fxpullback, "compile", lambda *given, rules, **more: compile(*given, **more))  # the soft one
    assert compared(one)[0] > 1e-3


def test_a_file_at_a_length_that_was_not_compiled_for(tmp_path: Path) -> None:
    one = case("text:Qwen3ForCausalLM")
    pb = fxpullback.compile(one.build(), examples(one), **one.options)
    to_onnx(pb, tmp_path / "model.onnx", certify=False)
    session = fxpullback.export.Session(tmp_path / "model.onnx")
    given = one.inputs(4, True)
    target = torch.tensor([0, 7, 63, 2])
    first, *others = given
    expected = pb(given[first], target, **{name: given[name] for name in others})
    result = session(given[first].numpy(), target.numpy(), **{name: given[name].numpy() for name in others})
    assert_near(torch.from_numpy(result.logits), expected[0], 1e-5)
    assert_near(torch.from_numpy(result.pullback), expected[1], 1e-4)


def test_logits_at_positions_by_hand() -> None:
    logits = torch.arange(12.0).reshape(1, 3, 4)
    assert at_positions("index", logits, {POSITIONS: torch.tensor([2])}).tolist() == [[8.0, 9.0, 10.0, 11.0]]
    mask = torch.tensor([[True, False, True]])
    assert at_positions("mask", logits, {POSITIONS: mask}).tolist() == [[4.0, 5.0, 6.0, 7.0]]
    grid = logits.transpose(1, 2).reshape(1, 4, 3, 1)
    assert at_positions("mask", grid, {POSITIONS: mask[..., None]}).tolist() == [[4.0, 5.0, 6.0, 7.0]]


def test_a_model_that_cannot_be_built_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> nn.Module:
        raise ZeroDivisionError("no weights")

    one = replace(case("audio:ast"), build=broken)
    monkeypatch.setattr("benchmarks.kinds.measure.case", lambda spec: one)
    row = measure(Row("audio:ast", "ast", 0, (0, 0), "ok"), tmp_path)
    assert (row.status, row.stage) == ("failed", "build")
    assert "ZeroDivisionError" in row.reason


def test_the_page_counts_and_says_what_fails() -> None:
    failed = replace(OK, spec="text:Gpt", status="failed", stage="capture", reason="CaptureError: `no`")
    text = "\n".join(of({OK.spec: OK, failed.spec: failed}))
    assert "1 of 2 pass" in text
    assert "| Bert | 15 | 3 | 1 | 2 | 0 | 2e-15 | 1e-15 | 1e-06 | 20 | 2.0 | 3 |" in text
    assert "| Gpt | failed in capture |" in text
    assert "- Gpt: `CaptureError: no`" in text
    errors = {**OK.errors, ROUNDS: 4e-8}
    assert "left in: Bert 4e-08." in "\n".join(of({OK.spec: replace(OK, errors=errors)}))
    sizes = replace(OK, sizes="2 to 64"), replace(OK, spec="text:FNet", fixed="CaptureError: one `size`")
    text = "\n".join(of({row.spec: row for row in sizes}))
    assert "| Bert | 2 to 64 | 3 |" in text
    assert "- FNet: `CaptureError: one size`" in text
    assert of({}) == []


def test_enough_models_pass() -> None:
    rows = read(RESULTS)
    architectures = {row.family for row in rows.values() if row.kind == "text" and row.status == "ok"}
    assert len(architectures) >= 30
    assert {one.spec for one in cases()} == set(rows)
    assert all(row.reason for row in rows.values() if row.status != "ok")
