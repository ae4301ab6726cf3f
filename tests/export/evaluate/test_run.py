"""Whole evaluations of small files: what they find, what they skip, how they go on after a stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fxpullback.errors import EvaluateError
from fxpullback.export.evaluate import Settings, evaluate, exact_baselines, other_file
from fxpullback.export.evaluate.metrics import METRICS
from fxpullback.export.evaluate.report import Report
from tests.export import handmade
from tests.export.evaluate import nets

QUICK = Settings(grid=4, steps=8, runs=16, samples=4)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return nets.linear(tmp_path / "linear.onnx")


def run(file: Path, pictures: Path, **options: Any) -> Report:
    return evaluate(file, pictures, **{"settings": QUICK, **options})


def value(report: Report, column: str, method: str) -> float:
    found = next(held for held in report.columns if held.name == column)
    return report.mean(found, method).mean


def test_every_metric_of_a_linear_network(file: Path, tmp_path: Path) -> None:
    exact = nets.linear(tmp_path / "exact.onnx", rules="exact")
    report = run(file, nets.folder(tmp_path / "pictures", masks=True), sources=[exact_baselines(exact)])
    assert not report.skipped
    measured = {column.name for metric in METRICS if metric.default for column in metric.columns}
    assert {row.column for row in report.rows} == measured
    names = [name for name, _ in report.methods]
    assert names[:3] == ["pullback", "pullback * input", "gradient"]
    for column in measured:
        for name in names:
            assert len(report.values(column, name)) == 4, (column, name)
    # The slope of a linear network predicts every change, whatever its scale.
    assert value(report, "infidelity, share", "pullback") == pytest.approx(0, abs=1e-6)
    assert value(report, "predicted change", "gradient") == pytest.approx(1, abs=1e-6)
    # Its pullback does not hang on the picture, nor does any mean of it.
    assert value(report, "max-sensitivity", "pullback") == value(report, "max-sensitivity", "constant") == 0
    for name in ("integrated gradients", "gradient * input"):
        assert value(report, "occlusion", name) == pytest.approx(value(report, "occlusion", "pullback * input"))
    assert value(report, "object hit", "pullback") == 1
    assert value(report, "object lift", "constant") == pytest.approx(1)


def test_sanity_checks_fail_where_they_must(file: Path, tmp_path: Path) -> None:
    report = run(file, nets.folder(tmp_path / "pictures"), metrics=["random-logit", "randomisation", "mosaic"])
    for control in ("constant", "input itself", "noise"):
        assert value(report, "random logit", control) == 1
        assert value(report, "randomised: all", control) == 1
    assert value(report, "grid pointing", "constant") == pytest.approx(0.25)
    assert value(report, "random logit", "pullback") < 0.5
    assert value(report, "randomised: all", "pullback") < 0.5
    assert all(report.best(column) not in report.controls for column in report.columns)


def test_mosaics_of_a_network_of_colours(tmp_path: Path) -> None:
    file = nets.linear(tmp_path / "colours.onnx", nets.colour_weights())
    report = run(file, nets.folder(tmp_path / "pictures", 8, colours=True), metrics=["mosaic"])
    assert value(report, "grid pointing", "pullback * input") == value(report, "pointing game", "pullback * input") == 1
    assert value(report, "grid pointing", "pullback") == pytest.approx(0.25, abs=0.05)  # nearly the same everywhere


def test_a_randomised_network_knows_nothing(tmp_path: Path) -> None:
    from fxpullback.export.evaluate.randomise import randomised_copy

    file = nets.linear(tmp_path / "colours.onnx", nets.colour_weights())
    pictures = nets.folder(tmp_path / "pictures", 8, colours=True)
    with randomised_copy(file, 1.0, 0) as copy:
        report = run(copy, pictures, metrics=["mosaic"])
    assert value(report, "grid pointing", "pullback * input") < 0.5


def test_numbers_come_from_the_seed_alone(file: Path, tmp_path: Path) -> None:
    pictures = nets.folder(tmp_path / "pictures")
    whole = run(file, pictures)
    alone = run(file, pictures, metrics=["infidelity"], methods=["noise", "pullback"])
    assert alone.rows == tuple(
        row
        for row in whole.rows
        if row.column in [c.name for c in alone.columns] and row.method in ("noise", "pullback")
    )
    other = run(file, pictures, metrics=["infidelity"], settings=Settings(1, 4, 8, 16, 4))
    assert other.values("infidelity", "noise") != whole.values("infidelity", "noise")


def test_a_stopped_evaluation_goes_on(file: Path, tmp_path: Path) -> None:
    pictures, rows = nets.folder(tmp_path / "pictures"), tmp_path / "rows.jsonl"

    def stop(done: int, whole: int, what: str) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(file, pictures, rows=rows, progress=stop)
    kept = rows.read_text()
    assert len(kept.splitlines()) > 20
    rows.write_text(kept + kept[: len(kept.splitlines()[0]) // 2])  # half a line, as a kill leaves it
    report = run(file, pictures, rows=rows)
    assert rows.read_text().startswith(kept)
    assert report.rows == run(file, pictures).rows
    before = rows.read_text()
    assert run(file, pictures, rows=rows).rows == report.rows
    assert rows.read_text() == before


def test_rows_of_other_files_and_settings_are_not_taken_up(file: Path, tmp_path: Path) -> None:
    pictures, rows = nets.folder(tmp_path / "pictures"), tmp_path / "rows.jsonl"
    first = run(file, pictures, rows=rows, metrics=["infidelity"])
    steeper = nets.linear(tmp_path / "steeper.onnx", held=2 * nets.weights())
    second = run(steeper, pictures, rows=rows, metrics=["infidelity"])
    assert value(second, "infidelity", "noise") == pytest.approx(4 * value(first, "infidelity", "noise"), rel=1e-4)
    (pictures / "0.png").write_bytes((pictures / "1.png").read_bytes())
    third = run(file, pictures, rows=rows, metrics=["infidelity"])
    assert third.values("infidelity", "noise")["0.png"] != first.values("infidelity", "noise")["0.png"]
    assert third.values("infidelity", "noise")["2.png"] == first.values("infidelity", "noise")["2.png"]


@pytest.mark.parametrize("target", ["cotangent", "top1"])
def test_other_targets(tmp_path: Path, target: str) -> None:
    pictures = nets.folder(tmp_path / "pictures")
    index = run(nets.linear(tmp_path / "index.onnx"), pictures)
    report = run(nets.linear(tmp_path / "net.onnx", target=target), pictures)
    assert report.values("occlusion", "pullback") == pytest.approx(index.values("occlusion", "pullback"))
    left_out = {skipped.metric for skipped in report.skipped if skipped.method == "pullback"}
    wanted = {"mosaic", "max-sensitivity", "random-logit", "randomisation"} if target == "top1" else set()
    assert left_out == wanted
    assert all("--target index" in skipped.reason for skipped in report.skipped if skipped.method)


def test_without_labels_the_top_class_is_explained(file: Path, tmp_path: Path) -> None:
    report = run(file, nets.folder(tmp_path / "pictures", labels=False))
    assert {skipped.metric for skipped in report.skipped} == {"mosaic", "object-share"}
    assert value(report, "infidelity, share", "pullback") == pytest.approx(0, abs=1e-6)


def test_subfolders_are_classes(file: Path, tmp_path: Path) -> None:
    flat = nets.folder(tmp_path / "flat", labels=False)
    for name, picture in (("ant", "0.png"), ("1", "1.png"), ("cat", "2.png"), ("dog", "3.png")):
        (tmp_path / "tree" / name).mkdir(parents=True)
        (flat / picture).rename(tmp_path / "tree" / name / picture)
    report = run(file, tmp_path / "tree", metrics=["mosaic"])
    assert report.about["accuracy"] == 1
    assert sorted(report.values("grid pointing", "pullback")) == ["1/1.png", "ant/0.png", "cat/2.png", "dog/3.png"]


def test_only_correct_pictures(file: Path, tmp_path: Path) -> None:
    pictures = nets.folder(tmp_path / "pictures", 8)
    labels = (pictures / "labels.csv").read_text().replace("5.png,1", "5.png,2")
    (pictures / "labels.csv").write_text(labels)
    report = run(file, pictures, metrics=["occlusion"], only_correct=True)
    assert len(report.values("occlusion", "pullback")) == 7
    assert report.about["accuracy"] == pytest.approx(7 / 8)


def test_reports_hold_what_was_found(file: Path, tmp_path: Path) -> None:
    report = run(file, nets.folder(tmp_path / "pictures", 1, labels=False), reference="noise")
    assert "One picture has no interval" in report.notes[0]
    held = json.loads(report.json())
    cell = next(cell for cell in held["cells"] if cell["column"] == "occlusion" and cell["method"] == "noise")
    assert (cell["count"], cell["low"], cell["difference_mean"]) == (1, None, 0)
    assert report.csv().splitlines()[0].startswith("column,method,better,count,mean,low,high")
    assert len(report.csv().splitlines()) == 1 + len(held["cells"])


def test_what_gives_no_number_is_left_out_with_the_reason(tmp_path: Path) -> None:
    held = nets.weights()
    held[3] = 3e38  # the logit of class 3 overflows where there is much light
    pictures = nets.folder(tmp_path / "pictures", 8)
    report = run(nets.linear(tmp_path / "steep.onnx", held), pictures, metrics=["infidelity"], methods=["noise"])
    assert sorted(report.values("infidelity", "noise")) == [f"{k}.png" for k in (0, 1, 2, 4, 5, 6)]
    assert [skipped.reason.split(":")[0] for skipped in report.skipped] == ["3.png", "7.png"]
    assert "logits that are no numbers" in str(report.skipped[0])


def _bad(tmp_path: Path, what: str) -> tuple[Path, Path, dict[str, Any]]:
    file, pictures = tmp_path / "net.onnx", tmp_path / "pictures"
    if what == "contrast":
        handmade.write(file, "contrast")
    else:
        nets.linear(file, target="top1" if what == "top1" else "index")
    if what == "empty":
        pictures.mkdir()
    elif what != "absent":
        nets.folder(pictures, labels=what != "unlabelled")
    if what == "label":
        (pictures / "labels.csv").write_text("file,class_index\n0.png,7\n")
    if what == "picture":
        (pictures / "labels.csv").write_text("file,class_index\nnone.png,1\n")
    if what == "header":
        (pictures / "labels.csv").write_text("0.png,1\n")
    if what == "rows":
        (tmp_path / "rows").write_text("something else\n")
    options: dict[str, dict[str, Any]] = {
        "unlabelled": {"metrics": ["mosaic"]},
        "masks": {"metrics": ["object-share"]},
        "metric": {"metrics": ["beauty"]},
        "method": {"methods": ["beauty"]},
        "reference": {"reference": "beauty"},
        "baseline": {"sources": [exact_baselines(file)]},
        "rows": {"rows": tmp_path / "rows"},
        "top1": {"metrics": ["random-logit"], "methods": ["pullback"]},
    }
    return file, pictures, options.get(what, {})


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("absent", "no such folder"),
        ("empty", "no picture in it"),
        ("unlabelled", "pictures of 4 classes together, and labels of 0 are there. Give labels"),
        ("masks", "Give masks"),
        ("label", "line 2: class 7: the model has 4 classes"),
        ("picture", "line 2: there is no picture 'none.png'"),
        ("header", "no rows with a column called file"),
        ("metric", "metric beauty: there is none of that name. There are occlusion"),
        ("method", "There are pullback, pullback"),
        ("reference", "none of the methods"),
        ("baseline", "Compile the model with --rules exact"),
        ("rows", "line 1: this is no row of an evaluation"),
        ("contrast", "Compile the model with --target index"),
        ("top1", "nothing can be measured.*--target index"),
    ],
)
def test_bad_input_says_what_and_what_to_do(tmp_path: Path, what: str, words: str) -> None:
    file, pictures, options = _bad(tmp_path, what)
    with pytest.raises(EvaluateError, match=words):
        run(file, pictures, **options)


def test_a_baseline_of_other_weights_is_refused(file: Path, tmp_path: Path) -> None:
    other = nets.linear(tmp_path / "other.onnx", rules="exact", held=2 * nets.weights())
    with pytest.raises(EvaluateError, match="another network, or other weights"):
        run(file, nets.folder(tmp_path / "pictures"), sources=[exact_baselines(other)])


def test_another_file_beside_the_first(file: Path, tmp_path: Path) -> None:
    other = nets.linear(tmp_path / "other.onnx", rules="exact")
    report = run(file, nets.folder(tmp_path / "pictures"), sources=[other_file("plain", other)], metrics=["occlusion"])
    assert {"plain pullback", "plain pullback * input"} <= {name for name, _ in report.methods}
    assert value(report, "occlusion", "plain pullback") == value(report, "occlusion", "pullback")
    wrong = nets.linear(tmp_path / "wrong.onnx", held=2 * nets.weights())
    with pytest.raises(EvaluateError, match=r"wrong\.onnx: its logits are others"):
        run(file, tmp_path / "pictures", sources=[other_file("wrong", wrong)])


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(EvaluateError, match="runs 1: 4 or more"):
        Settings(runs=1)
    with pytest.raises(EvaluateError, match="radius"):
        Settings(radius=0)


def test_the_forward_alone_gives_the_logits(file: Path) -> None:
    from fxpullback.export.evaluate.served import Served

    served = Served(file)
    x = np.random.default_rng(0).uniform(-1, 1, (37, 3, 8, 8)).astype(np.float32)
    wanted = x.reshape(37, -1) @ nets.weights().reshape(4, -1).T
    np.testing.assert_allclose(served.predict(x), wanted, rtol=1e-4, atol=1e-4)
    assert served._forward is not None
    assert served._forward != served._whole
    np.testing.assert_allclose(served._whole(x), wanted, rtol=1e-4, atol=1e-4)
