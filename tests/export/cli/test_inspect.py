"""`fxpullback inspect` and `verify` on hand-made files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fxpullback.export.cli import inspect as cli_inspect
from fxpullback.export.cli import terminal
from tests.export import handmade
from tests.export.cli.commands import run


def test_inspect(file: Path) -> None:
    printed, _ = run("inspect", file)
    for words in (
        "2 of 2 gates softened (1 of them held constant), 0 kept exact; 3 operators",
        "input float32 [batch, 3, 8, 8], target int64 [batch]",
        "logits float32 [batch, 5]",
        "Certificate: passed",
        "weights sha256",
        "ai.onnx 20",
        "relu 0.6",
        "mean.dim 1",
    ):
        assert words in printed, printed
    assert max(map(len, printed.splitlines())) <= terminal.COLUMNS


def test_inspect_in_full(file: Path) -> None:
    printed, _ = run("inspect", file, "--full")
    assert "net.py:13" in printed
    assert "layer_norm" in printed
    assert max(map(len, printed.splitlines())) <= terminal.COLUMNS


def test_inspect_in_full_says_why_a_row_is_no_gate_written_out(tmp_path: Path) -> None:
    ledger = handmade.ledger()
    sentence = "its output meets no second factor that depends on the input in a matrix product: " * 3 + "[bold]"
    exact = ledger["rows"][0] | {"index": 3, "verdict": "exact", "reason": "a softmax", "operator": "aten.softmax.int"}
    told = [["attention", sentence], ["mine", "it is [none]"]]
    ledger["rows"][1:1] = [exact | {"why_not": told}]
    ledger["rows"].append(exact | {"index": 4, "why_not": told[1:]})
    printed, _ = run("inspect", handmade.write(tmp_path / "why.onnx", changes={"ledger": json.dumps(ledger)}), "--full")
    assert max(map(len, printed.splitlines())) <= terminal.COLUMNS
    lines = [line.split() for line in printed.splitlines()]
    start = next(i for i, line in enumerate(lines) if line[:2] == ["no", "attention:"])
    assert lines[start - 1][0] == "3"
    end = next(i for i, line in enumerate(lines) if line[:2] == ["no", "mine:"])
    assert [word for line in lines[start:end] for word in line][2:] == sentence.split()
    assert lines[end] == ["no", "mine:", "it", "is", "[none]"]
    assert lines[end + 1][0] == "1"
    assert printed.count("no mine: ") == 2
    assert printed.count("# module") == 1
    brief, _ = run("inspect", tmp_path / "why.onnx")
    assert "no attention" not in brief


def test_inspect_without_certificate(tmp_path: Path) -> None:
    bare = handmade.write(tmp_path / "bare.onnx", changes={"certificate": None, "preprocessing": None, "classes": None})
    printed, _ = run("inspect", bare)
    assert "Certificate: none in the file" in printed
    assert "5, without names" in printed


@pytest.mark.parametrize("passed", [True, False])
def test_verify(file: Path, monkeypatch: pytest.MonkeyPatch, passed: bool) -> None:
    check = {
        "name": "dot test",
        "measured": 1e-7 if passed else None,
        "bound": 1e-5,
        "passed": passed,
        "detail": "batch 3",
    }
    seeds: list[int] = []

    class Certificate:
        def __init__(self) -> None:
            self.passed = passed

        def to_json(self) -> str:
            return json.dumps({"passed": passed, "checks": [check], "environment": {"torch": "2.15.0"}})

    def recheck(path: Path, seed: int) -> Certificate:
        seeds.append(seed)
        return Certificate()

    module = ModuleType("fxpullback.export.certify.recheck")
    monkeypatch.setattr(module, "recheck", recheck, raising=False)
    monkeypatch.setitem(sys.modules, "fxpullback.export.certify.recheck", module)
    printed, said = run("verify", file, "--seed", 7, code=0 if passed else 1)
    assert seeds == [7]
    assert ("Certificate: passed" in printed) == passed
    assert ("not finite" in printed) != passed
    assert ("must not be trusted" in said) != passed
    assert max(map(len, printed.splitlines())) <= terminal.COLUMNS
    run("verify", file, code=0 if passed else 1)
    run("verify", file, code=0 if passed else 1)
    assert seeds[1] != seeds[2]


def test_ledger_groups_like_modules() -> None:
    assert cli_inspect.pattern({"module": "blocks.0.attn.1"}) == "blocks.*.attn.*"
    assert cli_inspect.pattern({"module": "layer1.2.conv3"}) == "layer1.*.conv3"
    assert cli_inspect.pattern({"module": ""}) == "(model)"
    assert cli_inspect.span([{"temperature": 0.6}, {"temperature": 1.25}, {"temperature": None}]) == "0.6-1.25"
