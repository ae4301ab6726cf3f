"""`fxpullback compile`: the whole way to a file, and what it says when something is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fxpullback.export.cli import terminal
from fxpullback.export.runtime.session import Session
from tests.export.cli.commands import run, width_of


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--alpha", "3"], "the program soft has none"),
        (["--program", "double", "--steps", "3"], "the program double has none"),
        (["--temperature", "relu"], "KEY=VALUE is wanted"),
        (["--temperature", "relu=warm"], "a number is wanted"),
        (["--calibrate", "none", "--spread", "0.5"], "has no meaning without calibration"),
        (["--rules", "reference", "--calibrate", "noise"], "keep the temperatures of the paper"),
        (["--rules", "exact", "--calibrate", "."], "choose --rules semantic"),
        (["--rules", "exact", "--spread", "0.5"], "has no meaning without calibration"),
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


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ([], "noise", "2 gates calibrated on 16 samples of noise with the spectrum of pictures"),
        (["--calibrate", "noise", "--spread", "0.5"], "noise", "each at 0.5 standard deviations of its input"),
        (["--calibrate", "./noise"], "pictures", "2 gates calibrated on 1 picture, each at 0.9 standard"),
        (["--calibrate", "none"], None, "relu 0.6, max_pool 0.3"),
        (["--rules", "reference"], None, "relu 0.6, max_pool 0.3"),
        (["--rules", "reference", "--calibrate", "none"], None, "relu 0.6, max_pool 0.3"),
    ],
)
def test_what_temperatures_are_calibrated_on(
    network: str, picture: Path, arguments: list[str], kind: str | None, words: str
) -> None:
    Path("noise").mkdir()
    Path(picture).rename(Path("noise", Path(picture).name))
    run("compile", network, "--size", 8, "-o", "net.onnx", *arguments)
    session = Session("net.onnx")
    assert session.rules.get("calibrated_on", {}).get("kind") == kind
    assert session.ledger.get("calibrated_on") == session.rules.get("calibrated_on")
    printed, _ = run("inspect", "net.onnx")
    assert words in " ".join(printed.split())
    assert "calibrated on {" not in printed
    run("verify", "net.onnx")


def test_a_series_is_calibrated_on_its_examples(network: str) -> None:
    run("compile", network.replace("make", "series"), "--input-shape", "2,9", "-o", "net.onnx")
    assert Session("net.onnx").rules["calibrated_on"] == {"kind": "examples", "samples": 2}


def test_logistic_noise(network: str) -> None:
    run("compile", network, "--size", 8, "--noise", "logistic", "-o", "net.onnx")
    session = Session("net.onnx")
    assert session.rules["noise"] == "logistic"
    assert [row.get("noise") for row in session.ledger["rows"] if row["rule"]] == ["logistic", None]
    printed, _ = run("inspect", "net.onnx")
    assert "relu, logistic" in printed
    assert "noise logistic" in printed
    _, said = run(
        "compile", network, "--size", 8, "--rules", "exact", "--noise", "logistic", "-o", "exact.onnx", code=1
    )
    assert "no rule of the set exact takes noise" in " ".join(said.split())


def test_taps_and_what_is_drawn_of_them(network: str, picture: Path) -> None:
    _, said = run("compile", network, "--size", 8, "--each-tap", "-o", "net.onnx")
    assert "note: contribution: 6x6, at 1, 2" in said
    session = Session("net.onnx")
    assert session.outputs == ("logits", "pullback", "contribution", "contribution.1", "contribution.2")
    printed, _ = run("explain", "net.onnx", picture, "-o", "two.png")
    assert re.search(r"contribution: -?[\d.]+ of the logit, 6x6, at 1, 2", " ".join(printed.split()))
    run("explain", "net.onnx", picture, "--draw", "contribution", "-o", "one.png")
    run("explain", "net.onnx", picture, "--draw", "contribution,focus", "--draw", "strength", "-o", "three.png")
    assert width_of("one.png") < width_of("two.png") < width_of("three.png")
    printed, _ = run("inspect", "net.onnx")
    assert re.search(r"contribution +6x6, at 1, 2", printed)
    printed, _ = run("verify", "net.onnx", "--seed", 1)
    assert "contribution" in printed


def test_a_module_is_tapped_by_name(network: str) -> None:
    run("compile", network, "--size", 8, "--tap", "0", "-o", "net.onnx")
    session = Session("net.onnx")
    assert session.contributions is not None
    assert str(session.contributions) == "6x6, at 0"
    _, said = run("compile", network, "--size", 8, "--tap", "conv9", "-o", "other.onnx", code=1)
    assert "no module of this name computes anything" in said
    assert not Path("other.onnx").exists()


def test_without_taps(network: str, picture: Path) -> None:
    run("compile", network, "--size", 8, "--tap", "none", "-o", "net.onnx")
    assert Session("net.onnx").outputs == ("logits", "pullback")
    _, said = run("explain", "net.onnx", picture, "--draw", "focus", code=1)
    assert "it has no contribution to draw. Compile the model with --tap auto" in said
    _, said = run("explain", "net.onnx", picture, "--draw", "heat", code=2)
    assert "give contribution, focus, pullback, strength" in " ".join(re.sub(r"[│╭╰─╮╯]", " ", said).split())
    _, said = run("compile", network, "--size", 8, "--tap", "none", "--tap", "0", code=2)
    assert "none stands alone" in " ".join(re.sub(r"[│╭╰─╮╯]", " ", said).split())
    _, said = run("compile", network, "--size", 8, "--tap", "none", "--each-tap", code=1)
    assert "there are no taps" in said
