"""The command line on hand-made files: what it prints, what it writes, and what it says when something is wrong."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

from fxpullback.contract.errors import ExportError, ModelSourceError
from fxpullback.export.cli import inspect as cli_inspect
from fxpullback.export.cli import terminal
from fxpullback.export.cli.app import app
from fxpullback.export.pictures.class_names import class_index, label
from fxpullback.export.runtime.session import ProviderWarning, Session
from tests.export import handmade


def run(*arguments: Any, code: int = 0) -> tuple[str, str]:
    """stdout and stderr of one command, with the exit code checked."""
    result = CliRunner().invoke(app, [str(item) for item in arguments])
    assert result.exit_code == code, (
        f"exit code {result.exit_code}\n{result.stdout}\n{result.stderr}\n{result.exception}"
    )
    assert "Traceback" not in result.output
    return result.stdout, " ".join(result.stderr.split())


def width_of(path: str | Path) -> int:
    with Image.open(path) as drawn:
        return drawn.width


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "meadow.png"
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return handmade.write(tmp_path / "net.onnx")


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


def test_files_that_are_not_ours(file: Path, picture: Path) -> None:
    whole = file.read_bytes()
    Path("cut.onnx").write_bytes(whole[: len(whole) // 2])
    foreign = handmade.model()
    del foreign.metadata_props[:]
    onnx.save(foreign, "foreign.onnx")
    for command in (["explain", "FILE", picture], ["inspect", "FILE"], ["verify", "FILE"]):
        for name, words in (
            ("cut.onnx", "truncated"),
            ("foreign.onnx", "not written by fxpullback"),
            ("absent.onnx", "there is no such file"),
            (picture, "no whole ONNX file"),
        ):
            _, said = run(*(name if item == "FILE" else item for item in command), code=1)
            assert words in said, (command, name, said)
            assert "error: " in said


def test_output_that_cannot_be_written(file: Path, picture: Path) -> None:
    _, said = run("explain", file, picture, "-o", "absent/out.png", code=1)
    assert "there is no folder absent" in said
    _, said = run("explain", file, picture, "-o", ".", code=1)
    assert "this is a folder" in said
    _, said = run("explain", file, picture, "-o", "out.doc", code=2)
    assert "a picture format such as .png" in said


def test_a_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ExportError, match=r"cannot be written \(Permission denied\)\. Name another with -o"):
        terminal.check_output(tmp_path / "net.onnx")


def test_picture_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    path.write_text("before")

    class Broken:
        def save(self, name: str) -> None:
            Path(name).write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        terminal.save_picture(Broken(), path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_gpu_that_is_not_there(file: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fxpullback.export.runtime.providers.gpu_present", lambda: False)
    with pytest.warns(ProviderWarning):
        _warn_directly(file)
    _, said = run("explain", file, picture, "--provider", "cuda", "-o", "out.png")
    assert "warning: CUDAExecutionProvider was asked for and is not used" in said


def _warn_directly(file: Path) -> None:
    from fxpullback.export.runtime.session import Session

    Session(file, providers=["cuda"])


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--alpha", "3"], "the program soft has none"),
        (["--program", "double", "--steps", "3"], "the program double has none"),
        (["--temperature", "relu"], "KEY=VALUE is wanted"),
        (["--temperature", "relu=warm"], "a number is wanted"),
        (["--spread", "0.5"], "without --calibrate"),
        (["--calibrate", ".", "--spread", "-1"], "a positive number"),
        (["--size", "big"], "SIDE, HxW or CxHxW"),
        (["--input-shape", "2x9"], "whole numbers with commas"),
        (["--mean", "a,b,c"], "numbers with commas"),
        (["--program", "ascent", "--no-clip", "--clip-when", "last"], "contradicts"),
        (["--program", "hard"], "hard"),
        (["--target", "all"], "all"),
    ],
)
def test_usage_errors_of_compile(arguments: list[str], words: str) -> None:
    _, said = run("compile", "timm:test_resnet", "-o", "out.onnx", *arguments, code=2)
    assert words in said.replace("│ ", "")
    assert not Path("out.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["timm:resnt50"], "Did you mean"),
        (["resnet50"], "names no model"),
        (["timm:test_resnet", "--weights", "absent.safetensors"], "there is no such weights file"),
        (["timm:test_resnet", "--temperature", "rleu=0.4"], "relu"),
        (["timm:test_resnet", "--keep-exact", "atention"], "attention"),
        (["timm:test_resnet", "--without", "factor"], "carried-factors"),
        (["timm:test_resnet", "--model-option", "bogus=1"], "does not take these options"),
        (["timm:test_resnet", "--calibrate", "absent"], "there is no such folder of pictures"),
        (["timm:test_resnet", "--calibrate", "."], "no pictures to calibrate on"),
        (["timm:test_resnet", "--classes", "absent.txt"], "class names cannot be read"),
        (["timm:test_resnet", "--program", "double", "--alpha", "-1"], "positive"),
        (["timm:test_resnet", "-o", "absent/out.onnx"], "there is no folder absent"),
    ],
)
def test_errors_of_compile(arguments: list[str], words: str) -> None:
    _, said = run("compile", *arguments, code=1)
    assert "error: " in said
    assert words in said
    assert not list(Path().rglob("*.onnx"))


NETWORK = """
from torch import nn


def make(classes=4):
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, classes))


def any_size():
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()


def series():
    return nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, 4)).eval()
"""


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A factory in the working directory, for pictures of 8x8."""
    (tmp_path / "mynet.py").write_text(NETWORK)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "mynet", raising=False)
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\ndog\n")
    return "mynet:make"


@pytest.mark.parametrize("program", ["soft", "double", "ascent"])
def test_the_whole_way(network: str, picture: Path, program: str) -> None:
    arguments = ["--size", 8, "--classes", "names.txt", "--program", program, "-o", "net.onnx"]
    printed, said = run("compile", network, *arguments)
    assert re.match(r"net\.onnx: [\d.]+ KiB, 2 of 2 gates softened", printed)
    assert "note: the model was in training mode and was switched to eval mode" in said
    assert ("is meant for 224x224 pixels; for 8 the like is --alpha" in said) == (program != "soft")
    for stage in ("load model", "capture", "rewrite", "differentiate", "lower", "export"):
        assert f"{stage}" in said
    printed, _ = run("explain", "net.onnx", picture, "--target", "cat", "-o", "out.png")
    assert printed.startswith("cat: logit")
    assert width_of("out.png") > 900
    printed, _ = run("inspect", "net.onnx")
    assert "2 of 2 gates softened" in printed
    assert program in printed
    assert max(map(len, printed.splitlines())) <= terminal.COLUMNS
    assert not list(Path().glob(".net*"))


def test_options_reach_the_file(network: str) -> None:
    arguments = ["--size", 8, "--model-option", "classes=3", "--temperature", "relu=0.4", "--keep-exact", "max_pool"]
    arguments += ["--without", "carried-factors", "--target", "contrast"]
    run("compile", network, *arguments, "-o", "net.onnx")
    session = Session("net.onnx")
    assert "carried-factors" not in session.metadata.rewrites
    assert session.target == "contrast"
    assert session.class_count == 3
    verdicts = {row["operator"]: (row["verdict"], row["temperature"]) for row in session.ledger["rows"]}
    assert next(value for key, value in verdicts.items() if "relu" in key) == ("softened", 0.4)
    assert next(value for key, value in verdicts.items() if "max_pool" in key)[0] == "exact"


def test_a_series_is_no_picture(network: str, picture: Path) -> None:
    arguments = ["--input-shape", "2,9", "--program", "double", "-o", "net.onnx"]
    _, said = run("compile", network.replace("make", "series"), *arguments)
    assert "choose --alpha for this input" in said
    assert Session("net.onnx").input_shape == ("batch", 2, 9)
    printed, _ = run("verify", "net.onnx", "--seed", 1)
    assert "pullback" in printed
    _, said = run("explain", "net.onnx", picture, code=1)
    assert "['batch', 2, 9], which is no picture" in " ".join(said.split())


def test_a_free_size(network: str, picture: Path) -> None:
    arguments = ["--free-size", "-o", "net.onnx"]
    _, said = run("compile", network.replace("make", "any_size"), "--size", "9x12", *arguments)
    assert "height: any size from 4" in said
    assert Session("net.onnx").input_shape == ("batch", 3, "height", "width")
    run("verify", "net.onnx", "--seed", 1)
    run("explain", "net.onnx", picture, "-o", "out.png")
    _, said = run("compile", network, "--size", 8, *arguments, code=1)
    assert "free_size: the model fixes the size of its input" in " ".join(said.split())


def test_a_file_that_is_there_survives_a_failure(network: str) -> None:
    Path("net.onnx").write_text("before")
    _, said = run("compile", network, "--size", 20, "-o", "net.onnx", code=1)
    assert "does not run on an input of shape" in said
    assert Path("net.onnx").read_text() == "before"


def test_debug_shows_the_traceback() -> None:
    result = CliRunner().invoke(app, ["--debug", "inspect", "absent.onnx"])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_bugs_are_called_so(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(cli_inspect, "run", bug)
    _, said = run("inspect", file, code=1)
    assert "unexpected, and a bug of fxpullback: KeyError: 'surprise'" in said


@pytest.mark.parametrize("command", ["compile", "explain", "inspect", "verify", "demo"])
def test_help(command: str) -> None:
    printed, _ = run(command, "--help")
    assert "Usage: " in printed
