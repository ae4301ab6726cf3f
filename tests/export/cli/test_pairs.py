"""Several inputs explained together, on the command line: a picture and words, two pictures, rows of numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fxpullback.export import Session
from tests.export.cli.commands import run
from tests.graph.test_joined import Match, Siamese, both, sides

PAIRS = "tests.export.cli.test_pairs"


def match() -> nn.Module:
    torch.manual_seed(3)
    return Match().eval()


def siamese() -> nn.Module:
    torch.manual_seed(3)
    return Siamese().eval()


def examples(given: dict[str, Tensor], file: str) -> str:
    np.savez(file, **{name: (v.float() if v.is_floating_point() else v).numpy() for name, v in given.items()})  # type: ignore[arg-type]
    return file


def compiled(spec: str, given: dict[str, Tensor], *explain: str, code: int = 0, options: tuple[Any, ...] = ()) -> str:
    named = [argument for name in explain for argument in ("--explain", name)]
    file = examples(given, "examples.npz")
    _, said = run("compile", f"{PAIRS}:{spec}", "--example", file, "-o", "pair.onnx", *named, *options, code=code)
    return said


def test_inputs_are_explained_by_name() -> None:
    compiled("match", both(0), "pixels", "ids", options=("--rules", "exact"))
    session = Session("pair.onnx")
    assert list(session.metadata.explains) == ["pixels", "ids"]
    inputs = {name: v.float() if v.is_floating_point() else v for name, v in both(7).items()}
    pixels = inputs["pixels"].requires_grad_(True)
    logits = match()(**inputs)
    (wanted,) = torch.autograd.grad(logits[:, 0].sum(), pixels)
    passed = {name: inputs[name].numpy() for name in ("ids", "shift", "mask")}
    result = session(pixels.detach().numpy(), [0, 0], **passed)
    np.testing.assert_allclose(result.logits, logits.detach(), atol=1e-5)
    np.testing.assert_allclose(result.pullbacks["pixels"], wanted, atol=1e-5)
    printed, _ = run("inspect", "pair.onnx")
    assert re.search(r"explained together +pixels, ids", printed)
    assert re.search(r"passed through +shift, mask", printed)


def test_one_of_several_that_is_not_the_first() -> None:
    compiled("match", both(0), "ids")
    session = Session("pair.onnx")
    assert session.metadata.explains == {"ids": 13}
    assert list(session.extras) == ["shift", "pixels", "mask"]


@pytest.mark.parametrize("program", [("double",), ("ascent", "--no-clip", "--steps", 2)])
def test_every_program(program: tuple[Any, ...]) -> None:
    compiled("match", both(0), "pixels", "ids", options=("--program", *program, "--alpha", 0.5))
    session = Session("pair.onnx")
    moved = program[0] == "ascent"
    assert ("counterfactual.ids" in session.outputs) == moved
    run("verify", "pair.onnx")


def test_what_is_said_of_names() -> None:
    assert "--explain up: the model takes left, right" in compiled("siamese", sides(0), "left", "up", code=1)
    _, said = run("compile", "timm:resnet18", "--explain", "x", code=1)
    assert "there is an example of one. Pass examples of all of them with --example FILE" in said
    assert not Path("resnet18.onnx").exists()
