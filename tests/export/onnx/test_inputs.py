"""Files of models that take more than the input that is explained."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import fxpullback
from fxpullback import Pullback
from fxpullback.contract.errors import InputError
from fxpullback.export import Session, to_onnx
from fxpullback.export.certify.recheck import recheck
from tests.helpers import variant
from tests.several_inputs import CASES, PROGRAMS, oracle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@cache
def compiled(case: str) -> Pullback:
    examples = CASES[case].inputs(2, 1, torch.float32)
    return fxpullback.compile(CASES[case].network(torch.float32), examples, rules=fxpullback.SEMANTIC)


@cache
def written(folder: Path, case: str, program: str = "soft", target: str = "index") -> Path:
    pb = variant(compiled(case), program=PROGRAMS[program], target=target)
    return to_onnx(pb, folder / f"{case}-{program}-{target}.onnx")


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_onnx_runtime_against_the_oracle(folder: Path, case: str, batch: int) -> None:
    session = Session(written(folder, case), providers=["cpu"])
    x, *extras = CASES[case].inputs(batch, 17)
    index = torch.arange(batch)
    wanted = oracle(CASES[case].network(), PROGRAMS["soft"], torch.eye(4, dtype=torch.float64)[index], x, *extras)
    narrow = {name: e.numpy() for name, e in zip(CASES[case].names, extras, strict=True)}
    result = session(x.numpy(), index.numpy(), **narrow)
    for name, value in wanted.items():
        found = torch.from_numpy(getattr(result, name)).double()
        assert float((found - value).abs().max()) <= 1e-4 * float(value.abs().max())
    by_position = session(x.numpy(), index.numpy(), *narrow.values())
    assert np.array_equal(by_position.pullback, result.pullback)


PAIRS = [("padding mask", "double"), ("ids", "ascent"), ("two pictures", "double")]


@pytest.mark.parametrize(("case", "program"), PAIRS)
def test_programs(folder: Path, case: str, program: str) -> None:
    session = Session(written(folder, case, program, "top1"), providers=["cpu"])
    x, *extras = CASES[case].inputs(3, 17)
    network = CASES[case].network()
    u = torch.eye(4, dtype=torch.float64)[network(x, *extras).argmax(1)]
    wanted = oracle(network, PROGRAMS[program], u, x, *extras)
    result = session(x.numpy(), None, *(e.numpy() for e in extras))
    for name, value in wanted.items():
        found = torch.from_numpy(getattr(result, name)).double()
        assert float((found - value).abs().max()) <= 1e-3 * float(value.abs().max())


@pytest.mark.parametrize("case", CASES)
def test_the_file_says_what_it_takes_and_is_checked_alone(folder: Path, case: str) -> None:
    path = written(folder, case)
    model = onnx.load(path)
    names = CASES[case].names
    assert [value.name for value in model.graph.input] == ["input", *names, "target"]
    raw = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(raw["fxpullback.inputs"]) == {"explained": "input", "extras": list(names)}
    session = Session(path, providers=["cpu"])
    assert tuple(session.extras) == names
    assert session.inputs["input"].shape == ("batch", *CASES[case].shape)
    certificate = recheck(path, 5)
    assert certificate.passed, str(certificate)


def test_types_and_free_axes_stand_in_the_file(folder: Path) -> None:
    ids = Session(written(folder, "ids"), providers=["cpu"])
    assert [str(value) for value in ids.extras.values()] == ["types int64 [batch, 5]", "weight float32 [batch]"]
    mask = Session(written(folder, "padding mask"), providers=["cpu"])
    assert str(mask.extras["padding"]) == "padding bool [batch, 5]"
    assert str(Session(written(folder, "bias"), providers=["cpu"]).extras["bias"]) == "bias float32 [5, 5]"


GOOD: dict[str, Any] = {"types": np.zeros((3, 5), np.int64), "weight": np.ones(3, np.float32)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"types": np.zeros((3, 5))}, r"types: the type is float64, and the file takes types int64 \[batch, 5\]"),
        ({"types": np.zeros((2, 5), np.int64)}, r"types: the shape is \(2, 5\), and \(3, 5\) is wanted"),
        ({"weight": np.array([1, np.nan, 1], np.float32)}, "weight: it holds NaN"),
        ({"weight": object()}, "weight: the shape is|a numpy array is wanted"),
        ({"mask": np.zeros(3)}, "no extra input called mask"),
    ],
)
def test_wrong_extras_are_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    session = Session(written(folder, "ids"), providers=["cpu"])
    with pytest.raises(InputError, match=message):
        session(np.zeros((3, 5, 6), np.float32), [0, 1, 2], **{**GOOD, **change})


def test_missing_extras_are_refused(folder: Path) -> None:
    session = Session(written(folder, "ids"), providers=["cpu"])
    with pytest.raises(InputError, match="the extra input types is missing"):
        session(np.zeros((3, 5, 6), np.float32), [0, 1, 2])


def test_types_are_narrowed_where_nothing_is_lost(folder: Path) -> None:
    session = Session(written(folder, "ids"), providers=["cpu"])
    x, index = np.ones((3, 5, 6), np.float32), [0, 1, 2]
    narrow = session(x, index, types=np.ones((3, 5), np.int32), weight=np.ones(3))
    same = session(x, index, np.ones((3, 5), np.int64), np.ones(3, np.float32))
    assert np.array_equal(narrow.pullback, same.pullback)
