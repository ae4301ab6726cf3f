"""The sweep over files: one row at a time, kept whatever happens to the next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.coverage import Limits
from benchmarks.importer.files import File, Job, in_front, story
from benchmarks.importer.folder import folder_jobs
from benchmarks.importer.jobs import jobs
from benchmarks.importer.sweep import chosen, in_a_process, read, sweep, write
from tests.importer.graphs import model, node, perceptron, saved

LIMITS = Limits(seconds=200.0, memory_gb=6.0)


def test_rows_are_kept_one_by_one_and_replaced_by_name(tmp_path: Path) -> None:
    rows = tmp_path / "files.jsonl"
    first, second = File("b", "x", group="timm"), File("a", "x", group="timm", logits=1e-7)
    for row in (first, second, File("b", "x", passed=True, group="timm")):
        write(rows, row)
    with rows.open("a") as file:
        file.write('{"name": "cut')
    found = read(rows)
    assert [*found] == ["timm/a", "timm/b"]
    assert found["timm/b"].passed
    assert found["timm/a"] == second


def test_names_choose_and_what_has_a_row_is_left_out() -> None:
    known = {f"light/{name}": Job("light", name, "", lambda path: None) for name in "abc"}
    held = {"light/a": File("a", "", passed=True, group="light"), "light/b": File("b", "", group="light")}
    assert chosen([], known, held) == ["light/c"]
    assert chosen(["failed"], known, held) == ["light/b"]
    assert chosen(["c", "light/a"], known, held) == ["light/a", "light/c"]
    assert chosen(["light"], known, held) == [*known]
    with pytest.raises(SystemExit, match=r"no such file: d\. There are light/a"):
        chosen(["d"], known, held)


def test_every_file_of_the_project_has_a_name_of_its_own() -> None:
    assert {job.group for job in jobs().values()} == {"light", "timm"}
    assert len(jobs()) >= 29


def test_a_folder_of_files_is_measured_each_in_a_process(tmp_path: Path) -> None:
    saved(perceptron(), tmp_path / "good.onnx")
    saved(model([node("NonZero", ["x"], ["n"]), node("Cast", ["n"], ["logits"], to=1)], [2, 6]), tmp_path / "bad.onnx")
    (tmp_path / "files.json").write_text(json.dumps({"good.onnx": {"source": "package==1.0", "logits": "logits"}}))
    rows = tmp_path / "rows.jsonl"
    sweep([], tmp_path, LIMITS, rows)
    found = read(rows)
    assert found["file/good"].passed
    assert found["file/good"].source == "package==1.0"
    assert found["file/good"].logits is not None
    assert not found["file/bad"].passed
    assert "NonZero" in found["file/bad"].reason


def test_a_file_that_takes_too_long_has_a_row_that_says_so(tmp_path: Path) -> None:
    saved(perceptron(), tmp_path / "slow.onnx")
    (job,) = folder_jobs(tmp_path)
    assert in_a_process("file/slow", job, tmp_path, Limits(seconds=0.5)).reason == "longer than 0 s"


def test_what_stands_in_front_of_a_softmax_is_explained() -> None:
    nodes = [node("Relu", ["x"], ["r"]), node("Softmax", ["r"], ["s"]), node("Identity", ["s"], ["logits"])]
    assert in_front(model(nodes, [2, 3])) == "r"
    assert in_front(model(nodes[:1], [2, 3], ["r"])) is None


def test_two_ledgers_are_compared_gate_by_gate() -> None:
    own = ["aten.relu by relu", "aten.softmax by no rule"]
    assert story(own, own) == "same"
    said = "1 and 2 gates, the first that differs at 2: nothing, of the module aten.softmax by no rule"
    assert story(own[:1], own) == said
    assert story(["aten.gelu by gelu", own[1]], own).startswith("2 and 2 gates, the first that differs at 1: aten.gelu")


def test_networks_of_timm_are_measured_by_both_exporters() -> None:
    made = [job.name.split(".")[1] for job in jobs().values() if job.group == "timm"]
    assert made.count("script") == made.count("dynamo") == 20
    assert "swin_tiny_patch4_window7_224.fixed" in {job.name for job in jobs().values()}
