"""`fxpullback insert`, from the command line to a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

from fxpullback.export.cli.app import app
from tests.export.insert.networks import net


@pytest.fixture(scope="module")
def inserted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with its pullback beside its nodes."""
    folder = tmp_path_factory.mktemp("insert")
    found = CliRunner().invoke(app, ["insert", str(net(folder / "net.onnx")), "-o", str(folder / "out.onnx")])
    assert found.exit_code == 0, found.output
    assert "certificate passed" in found.output
    return folder / "out.onnx"


def test_inspect_says_beside_what_it_stands(inserted: Path) -> None:
    found = CliRunner().invoke(app, ["inspect", str(inserted)])
    own = len(onnx.load(inserted.with_name("net.onnx")).graph.node)
    assert f"its {own} nodes as they were" in " ".join(found.output.split())


def test_verify_makes_the_certificate_again(inserted: Path) -> None:
    found = CliRunner().invoke(app, ["verify", str(inserted)])
    assert found.exit_code == 0, found.output
    assert "nodes of the original file" in found.output


def test_a_picture_is_explained(inserted: Path, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)).save(tmp_path / "x.png")
    found = CliRunner().invoke(
        app, ["explain", str(inserted), str(tmp_path / "x.png"), "-o", str(tmp_path / "explained.png")]
    )
    assert found.exit_code == 0, found.output
    assert (tmp_path / "explained.png").is_file()


def test_other_models_are_for_compile() -> None:
    found = CliRunner().invoke(app, ["insert", "timm:resnet10t"])
    assert found.exit_code != 0
    assert "fxpullback compile" in " ".join(found.output.split())
