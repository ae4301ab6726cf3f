"""The gallery: pictures by turns, networks of the reader's own, and a page that loads nothing."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.gallery import main
from benchmarks.gallery_page import METHODS, short_number, tiles_of, uri
from benchmarks.networks import by_turns, names_in, of_demo
from fxpullback.export.evaluate.cases import Case


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the demo's network."""
    path = tmp_path_factory.mktemp("gallery") / "gallery.html"
    assert main(["demo", "--count", "2", "-o", str(path)]) == path
    return path.read_text(encoding="utf-8")


def test_the_page_holds_everything(made: str) -> None:
    assert made.count('src="data:image/jpeg;base64,') == 2 * (1 + len(METHODS))
    addresses = re.findall(r'(?:src|href)="([^"]{,20})', made)
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "http" not in re.sub(r'src="[^"]*"', "", made)
    for head, text in METHODS.values():
        assert head in made
        assert text in made


def test_every_map_has_its_numbers(made: str) -> None:
    assert made.count("<i>occ</i>") == made.count("<i>GP</i>") == made.count("<i>i-d</i>") == 2 * len(METHODS)


def test_pictures_alone_and_a_network_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    held = of_demo(tmp_path / "build").folder
    for name in ("00.png", "01.png"):
        (folder / name).write_bytes((held / name).read_bytes())
    spec = "fxpullback.export.zoo.demo_model:demo_model"
    options = ["--data", str(folder), "--model", spec, "--size", "64", "--count", "1"]
    text = main([*options, "-o", str(tmp_path / "page.html")]).read_text(encoding="utf-8")
    assert text.count("<i>occ</i>") == len(METHODS)
    assert "<i>GP</i>" not in text
    assert "demo_model" in capsys.readouterr().out


def test_pictures_without_a_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--model"):
        main(["--data", str(tmp_path), "-o", str(tmp_path / "page.html")])


def test_every_class_has_its_turn() -> None:
    cases = [Case(name, Path(name), label) for name, label in (("a", 0), ("b", 0), ("c", 0), ("d", 1), ("e", 2))]
    assert [case.name for case in by_turns(cases)] == ["a", "d", "e", "b", "c"]


def test_names_come_from_the_labels(tmp_path: Path) -> None:
    assert names_in(tmp_path) == {}
    (tmp_path / "labels.csv").write_text("file,class_index,name\na.png,3,water_ouzel\nb.png,,\n")
    assert names_in(tmp_path) == {3: "water ouzel"}


def test_tiles_are_as_large_as_a_picture_is_drawn() -> None:
    rng = np.random.default_rng(0)
    x, p = rng.uniform(-1, 1, (2, 1, 3, 32, 32)).astype(np.float32)
    coarse = rng.normal(size=(1, 4, 4)).astype(np.float32)
    tiles = tiles_of(x, (p, coarse), (p, coarse))
    assert set(tiles) == {"picture", *METHODS}
    assert {tile.size for tile in tiles.values()} == {(224, 224)}
    assert uri(Image.new("RGB", (2, 2))).startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize(("value", "text"), [(0.541, ".54"), (-0.08, "-.08"), (1.0, "1.00"), (-0.001, "0.00")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert short_number(value) == text
