"""Five hundred files with something changed in them: each is read as it now is, or refused in our words."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.load import load
from tests.importer.graphs import drawn, model, node, perceptron

FILES = 500


def _attention() -> bytes:
    """Shape arithmetic, a softmax, a reshape with constants."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Concat", ["n", "rest"], ["sizes"], axis=0),
        node("Reshape", ["x", "sizes"], ["h"]),
        node("MatMul", ["h", "w"], ["q"]),
        node("Transpose", ["h"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["q", "t"], ["scores"]),
        node("Softmax", ["scores"], ["p"], axis=-1),
        node("MatMul", ["p", "h"], ["o"]),
        node("ReduceMean", ["o", "one"], ["logits"], keepdims=0),
    ]
    weights = {"zero": np.array([0]), "rest": np.array([3, 4]), "one": np.array([1]), "w": drawn(4, 4)}
    made: bytes = model(nodes, ["n", 12], weights=weights).SerializeToString()
    return made


def _flipped(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 1, 2, 8))):
        at = dice.randrange(len(data))
        data[at] ^= 1 << dice.randrange(8)


def _cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def _removed(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    del data[at : at + dice.randrange(1, 40)]


def _added(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    data[at:at] = bytes(dice.randrange(256) for _ in range(dice.randrange(1, 20)))


def _doubled(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    data[at:at] = data[at : at + dice.randrange(1, 60)]


def _large(data: bytearray, dice: random.Random) -> None:
    """Where a length or a number stands, a large one."""
    at = dice.randrange(len(data) - 6)
    data[at : at + 5] = bytes((0xFF, 0xFF, 0xFF, 0xFF, 0x07))


CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (_flipped, _cut, _removed, _added, _doubled, _large)


@pytest.mark.filterwarnings("ignore")
def test_no_changed_file_escapes_our_errors(tmp_path: Path) -> None:
    originals = {6: perceptron().SerializeToString(), 12: _attention()}
    dice, path, read = random.Random(0), tmp_path / "m.onnx", 0
    for i in range(FILES):
        width = (6, 12)[i % 2]
        data = bytearray(originals[width])
        dice.choice(CHANGES)(data, dice)
        path.write_bytes(data)
        try:
            module = load(path)
            read += 1
            with torch.no_grad():
                module(*[torch.randn(2, width) for _ in module.inputs])
        except CaptureError:
            continue
    assert 0 < read < FILES
