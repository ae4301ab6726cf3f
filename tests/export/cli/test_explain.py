"""`fxpullback explain` on hand-made files: what it prints, what it draws, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fxpullback.contract.errors import ModelSourceError
from fxpullback.export.pictures.class_names import class_index, label
from fxpullback.export.runtime.session import ProviderWarning, Session
from tests.export import handmade
from tests.export.cli.commands import run, width_of


def test_explain_the_top_class(file: Path, picture: Path) -> None:
    printed, _ = run("explain", file, picture)
    top = re.search(r"^(\w+): logit", printed)
    assert top is not None
    (written,) = Path().glob("meadow-*.png")
    assert written.name == f"meadow-{top[1]}.png"
    assert width_of(written) > 900
    assert len(re.findall(r"^\d ", printed, re.M)) == 5


@pytest.mark.parametrize("name", ["zebra", "ZEBRA", "4", "zeb", "class 4"])
def test_explain_a_class_by_name_or_index(file: Path, picture: Path, name: str) -> None:
    printed, _ = run("explain", file, picture, "--target", name, "-o", "out.png")
    assert printed.startswith("zebra: logit")
    assert Path("out.png").is_file()


def test_explain_ascent(tmp_path: Path, picture: Path) -> None:
    ascent = handmade.write(tmp_path / "ascent.onnx", "index", "ascent")
    printed, _ = run("explain", ascent, picture, "--target", "bee", "-o", "out.png")
    assert "counterfactual" in printed
    row = next(line for line in printed.splitlines() if " bee " in line)
    before, after = (float(number) for number in row.split()[-2:])
    assert after > before
    assert width_of("out.png") > 1200


def test_explain_top1(tmp_path: Path, picture: Path) -> None:
    top1 = handmade.write(tmp_path / "top1.onnx", "top1")
    printed, _ = run("explain", top1, picture, "-o", "out.png")
    best = printed.split(":")[0]
    other = next(name for name in ("ant", "bee", "zebra") if name != best)
    _, said = run("explain", top1, picture, "--target", other, "-o", "other.png", code=1)
    assert "explains the top-1 class alone" in said
    assert not Path("other.png").exists()


@pytest.mark.parametrize("kind", ["contrast", "cotangent"])
def test_explain_one_class_against_another(tmp_path: Path, picture: Path, kind: str) -> None:
    made = handmade.write(tmp_path / f"{kind}.onnx", kind)
    printed, _ = run("explain", made, picture, "--target", "zebra", "--against", "ant", "-o", "out.png")
    assert printed.startswith("zebra against ant: difference of logits")
    printed, _ = run("explain", made, picture, "-o", "out.png")
    assert (" against " in printed) == (kind == "contrast")


def test_explain_without_preprocessing_and_names(tmp_path: Path, picture: Path) -> None:
    bare = handmade.write(tmp_path / "bare.onnx", changes={"preprocessing": None, "classes": None})
    printed, said = run("explain", bare, picture, "--target", 2)
    assert printed.startswith("class 2: logit")
    assert "says nothing about preprocessing" in said
    _, said = run("explain", bare, picture, "--target", "zebra", code=1)
    assert "holds no class names. Pass an index from 0 to 4" in said


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("crane", r"2 classes are meant by that: crane, a bird \(2\), crane, a machine \(3\)"),
        ("zebar", "none of the 5 classes is called that. Did you mean zebra"),
        ("5", "the model has 5 classes, 0 to 4"),
        ("-1", "the model has 5 classes, 0 to 4"),
        ("qqq", "Known are ant, bee"),
    ],
)
def test_no_such_class(file: Path, picture: Path, target: str, words: str) -> None:
    _, said = run("explain", file, picture, f"--target={target}", "-o", "out.png", code=1)
    assert re.search(words, said)
    assert not Path("out.png").exists()


def test_class_names() -> None:
    names = ["tench, Tinca tinca", "Cardigan, Cardigan Welsh corgi", "cardigan", "7", "hot_dog"]
    assert class_index("tinca TINCA", names, 5) == 0
    assert class_index("cardigan", names, 5) == 2
    assert class_index("welsh", names, 5) == 1
    assert class_index("7", names, 5) == 3
    assert class_index("0", names, 5) == 0
    assert class_index("hot dog", names, 5) == 4
    assert label(0, names) == "tench"
    assert label(3, None) == "class 3"
    with pytest.raises(ModelSourceError, match="none of the 5 classes"):
        class_index("", names, 5)


def test_contrast_needs_a_file_for_it(file: Path, picture: Path) -> None:
    _, said = run("explain", file, picture, "--against", "ant", code=1)
    assert "its target is index" in said
    assert "--target contrast" in said


def test_no_picture(file: Path) -> None:
    Path("text.jpg").write_text("no picture")
    _, said = run("explain", file, "text.jpg", "-o", "out.png", code=1)
    assert said.endswith("JPEG2000, AVIF).")
    assert "text.jpg: this is no picture" in said
    _, said = run("explain", file, "absent.jpg", code=1)
    assert "absent.jpg: there is no such file" in said
    assert not list(Path().glob("*.png"))


def test_output_that_cannot_be_written(file: Path, picture: Path) -> None:
    _, said = run("explain", file, picture, "-o", "absent/out.png", code=1)
    assert "there is no folder absent" in said
    _, said = run("explain", file, picture, "-o", ".", code=1)
    assert "this is a folder" in said
    _, said = run("explain", file, picture, "-o", "out.doc", code=2)
    assert "a picture format such as .png" in said


def test_gpu_that_is_not_there(file: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fxpullback.export.runtime.providers.gpu_present", lambda: False)
    with pytest.warns(ProviderWarning):
        _warn_directly(file)
    _, said = run("explain", file, picture, "--provider", "cuda", "-o", "out.png")
    assert "warning: CUDAExecutionProvider was asked for and is not used" in said


def _warn_directly(file: Path) -> None:

    Session(file, providers=["cuda"])
