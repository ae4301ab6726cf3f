"""The picture at the top of README.md is what the command makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import opening
from fxpullback.export.cli.demo import PICTURES, SEED
from fxpullback.export.pictures.colours import SIGNED
from fxpullback.export.zoo.demo_model import CLASSES, demo_model, draw


def test_the_command_makes_the_picture_again(tmp_path: Path) -> None:
    made = opening.make(tmp_path / "new" / "opening.png")
    assert opening.PATH.stat().st_size < 300_000
    with Image.open(opening.PATH) as held, Image.open(made) as again:
        assert held.size == again.size
        far = np.abs(np.asarray(held.convert("RGB"), dtype=float) - np.asarray(again.convert("RGB"), dtype=float))
    assert far.mean() < 0.5
    assert (far.max(-1) > 24).mean() < 0.005


def test_what_it_says_of_the_network_is_so() -> None:
    x, y, _ = draw(SEED, PICTURES)
    first = [int((y == CLASSES.index(name)).nonzero()[0]) for name in opening.CLASSES]
    assert demo_model()(x[first]).argmax(1).equal(y[first])


def test_orange_is_for_and_blue_against() -> None:
    pullback = np.zeros((3, 4, 4))
    pullback[:, 0, 0], pullback[:, 3, 3] = 1, -1
    tile = np.asarray(opening.signed_tile(pullback), dtype=int)
    assert tuple(tile[0, 0]) == SIGNED[-1]
    assert tuple(tile[-1, -1]) == SIGNED[0]
    assert tuple(tile[0, -1]) == SIGNED[3]
    red, blue = tile[0, 0, 0] - tile[0, 0, 2], tile[-1, -1, 2] - tile[-1, -1, 0]
    assert min(red, blue) > 100


@pytest.mark.parametrize("name", ["README.md", "docs/gallery.md"])
def test_readme_shows_it(name: str) -> None:
    root = opening.PATH.parent.parent.parent
    text = (root / name).read_text(encoding="utf-8")
    assert "pictures/opening.png)" in text
    assert "python -m benchmarks.opening" in text
