"""`compile --bias`, and what `inspect` and `explain` say of the parts of a logit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fxpullback.export import Session
from tests.export.cli.commands import run

NUMBER = r"(-?\d+\.\d{3})"


@pytest.mark.parametrize("program", ["soft", "double"])
def test_parts_of_a_logit(network: str, picture: Path, program: str) -> None:
    run("compile", network, "--size", "8", "-o", "net.onnx", "--bias", "share", "--tap", "none", "--program", program)
    printed, _ = run("inspect", "net.onnx")
    assert re.search(r"parts +input, biases, gates", printed)
    printed, _ = run("explain", "net.onnx", picture, "-o", "out.png")
    found = re.search(rf"input {NUMBER} \+ biases {NUMBER} \+ gates {NUMBER} = logit {NUMBER}", printed)
    assert found is not None, printed
    *parts, whole = map(float, found.groups())
    assert abs(sum(parts) - whole) < 3e-3
    assert ("of the second pass" in printed) == (program == "double")
    if program == "soft":
        said = re.search(rf": logit {NUMBER}", printed)
        assert said is not None
        assert abs(float(said[1]) - whole) < 2e-3


def test_biases_where_they_act(network: str) -> None:
    run("compile", network, "--size", "8", "-o", "net.onnx", "--bias", "pushed")
    assert Session("net.onnx").outputs == ("logits", "pullback", "contribution", "bias_contribution", "parts")


def test_without_places_pushed_is_refused(network: str) -> None:
    _, said = run("compile", network, "--size", "8", "--bias", "pushed", "--tap", "none", code=1)
    assert "there are no taps" in said
