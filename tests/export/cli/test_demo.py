"""What `fxpullback demo` counts and writes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from fxpullback.contract.errors import ExportError
from fxpullback.export.cli import demo
from fxpullback.export.zoo.demo_model import CLASSES


def test_share_counts_size_not_sign() -> None:
    pullback = np.zeros((2, 3, 4, 4), np.float32)
    pullback[0, :, 0, 0], pullback[0, 1, 3, 3] = -2, 3
    masks = np.zeros((2, 4, 4), bool)
    masks[:, 0, 0] = True
    np.testing.assert_allclose(demo.object_share(pullback, masks), [6 / 9, 0], rtol=1e-6)


def test_share_of_an_even_pullback_is_the_area() -> None:
    masks = np.random.default_rng(0).random((5, 8, 8)) < 0.3
    share = demo.object_share(np.ones((5, 3, 8, 8), np.float32), masks)
    np.testing.assert_allclose(share, masks.mean((1, 2)), rtol=1e-6)


def test_share_of_a_contribution_counts_what_is_for_the_class() -> None:
    contribution = np.zeros((2, 2, 2), np.float32)
    contribution[0, 0, 0], contribution[0, 1, 1] = 2, -7
    masks = np.zeros((2, 8, 8), bool)
    masks[:, :4, :4] = True
    first, second = demo.contribution_share(contribution, masks)
    assert 0.7 < first < 1  # the rest is what enlarging spreads over the border
    assert second == 0
    assert demo.contribution_share(np.ones((2, 2, 2), np.float32), masks) == pytest.approx(0.25)


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(ExportError, match="cannot be written"):
        demo.run_demo(tmp_path / "taken", Console(quiet=True))


def test_runner_up_is_the_best_wrong_class() -> None:
    logits = np.array([[5, 1, 3], [0, 1, 3], [2, 2, 9]], np.float32)
    np.testing.assert_array_equal(demo.runner_up(logits, np.array([0, 0, 1])), [2, 2, 2])
    np.testing.assert_array_equal(demo.runner_up(logits, np.array([2, 2, 2])), [0, 1, 0])


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and text of one run of the demo."""
    output = tmp_path_factory.mktemp("demo") / "new" / "folder"
    console = Console(width=100, record=True, quiet=False, force_terminal=False)
    demo.run_demo(output, console)
    return output, console.export_text()


def test_demo_writes_a_file_for_every_program_and_a_picture_for_every_class(report: tuple[Path, str]) -> None:
    output, _ = report
    assert {path.name for path in output.glob("*.onnx")} == {f"demo-{name}.onnx" for name in demo.programs()}
    names = {f"{name}-{program}.png" for name in CLASSES for program in demo.programs()}
    assert {path.name for path in output.iterdir() if path.suffix != ".onnx"} == names
    for name in names:
        with Image.open(output / name) as picture:
            assert picture.width > 2 * picture.height
            assert len(picture.convert("L").getcolors(1 << 20) or []) > 50


def test_demo_reports_shares_and_certificates(report: tuple[Path, str]) -> None:
    _, text = report
    rows = [line.replace("│", " ").split() for line in text.splitlines() if "│" in line]
    lines = {cells[0]: cells for cells in rows if cells}
    for name in demo.programs():
        assert "passed" in lines[name]
    carried, pulled = ([float(v.rstrip("%")) for v in cells[2:]] for cells in rows if cells[:1] == ["all"])
    area, gradient, soft, double, ascent = pulled
    assert 2 * area < gradient < min(soft, double)
    assert 2 * area < ascent
    area, gradient, soft, double, _ = carried
    assert 2 * area < gradient < min(soft, double)
    assert max(pulled) < soft
    rises = re.search(r"rises in\s+(\d+)%", text)
    assert rises
    assert int(rises[1]) > 90
