"""The common room: command lines, files that are kept, and one real run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.evidence.command import RESULTS, Run, run_of
from benchmarks.evidence.variants import DEFAULT, OURS, PLAIN, Variant, compiled, measured
from benchmarks.networks import Network
from fxpullback import SEMANTIC
from fxpullback.export import Session
from fxpullback.export.evaluate import Settings
from fxpullback.export.pictures.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evidence")


@pytest.fixture(scope="module")
def small(build: Path) -> Network:
    """A network of two convolutions, and two pictures without labels."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    ).eval()
    folder = build / "drawn"
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    for number, picture in enumerate(values):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return Network("small", model, Preprocessing.plain((3, 16, 16)), folder)


def test_committed_results_are_written_without_arguments_alone(tmp_path: Path) -> None:
    assert run_of("study", "About.", ("demo",), 3, []).output == RESULTS
    own = run_of("study", "About.", ("demo",), 3, ["--count", "1", "--build", str(tmp_path)])
    assert own == Run("study", ("demo",), 1, tmp_path, tmp_path / "results")
    named = run_of("study", "About.", ("demo",), 3, ["other", "-o", str(tmp_path)])
    assert (named.names, named.output) == (("other",), tmp_path)


def test_a_file_is_kept_until_something_changes(small: Network, build: Path) -> None:
    paper = Variant("paper", SEMANTIC)
    path = compiled(small, paper, build)
    first = path.stat().st_mtime_ns
    assert compiled(small, paper, build).stat().st_mtime_ns == first
    other = compiled(small, Variant("paper", SEMANTIC.with_temperature(relu=0.1)), build)
    assert other == path
    assert other.stat().st_mtime_ns != first
    assert Session(other).rules["temperatures"]["relu"] == 0.1


def test_taps_of_a_variant(small: Network, build: Path) -> None:
    path = compiled(small, Variant("one tap", SEMANTIC, taps=("1",)), build)
    held = Session(path).contributions
    assert held is not None
    assert [place.name for place in held.places] == ["1"]


def test_a_run(small: Network, build: Path) -> None:
    run = Run("study", ("small",), 2, build, build / "results")
    asked = ["pullback", "contribution", "gradient", "HiResCAM", "paper pullback"]
    few = Settings(runs=10, steps=4)
    report = measured(
        run, small, ["occlusion", "infidelity"], variants=[Variant("paper", SEMANTIC)], methods=asked, settings=few
    )
    assert [name for name, _ in report.methods] == asked
    assert report.about["count"] == 2
    assert len(report.rows) == 2 * len(asked) * 5  # occlusion, wide; infidelity, its share, predicted change
    rows = build / "small" / "rows.jsonl"
    before = rows.read_text()
    again = measured(run, small, ["occlusion"], methods=["pullback"], reference="pullback", settings=few)
    assert rows.read_text() == before  # nothing was measured a second time
    assert {row.value for row in again.rows} <= {row.value for row in report.rows}
    assert (build / "small" / f"{DEFAULT}.onnx").is_file()
    assert (OURS.name, PLAIN.name) == ("soft", "gradient")
