"""GELU written out in a file is one gate; what only looks like it stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import fxpullback
from fxpullback import EXACT
from tests.helpers import assert_near
from tests.importer.graphs import drawn, model, node, saved

HALF, ROOT = np.float32(0.5), np.float32(2**0.5)
Nodes = list[onnx.NodeProto]
HEAD = [node("MatMul", ["x", "w"], ["h"])]
ERF = [node("Div", ["h", "root"], ["d"]), node("Erf", ["d"], ["e"], "/act/Erf"), node("Add", ["e", "one"], ["p"])]

LAST = [node("Mul", ["h", "p"], ["m"]), node("Mul", ["m", "half"], ["g"])]
FORMS: dict[str, Nodes] = {
    "x (1 + erf), then half": [*ERF, *LAST],
    "half x, then (1 + erf)": [node("Mul", ["h", "half"], ["m"]), *ERF, node("Mul", ["m", "p"], ["g"])],
    "half (1 + erf), then x": [*ERF, node("Mul", ["half", "p"], ["m"]), node("Mul", ["m", "h"], ["g"])],
    "divided by two": [*ERF, node("Mul", ["p", "h"], ["m"]), node("Div", ["m", "two"], ["g"])],
    "times the root of a half": [node("Mul", ["inverse", "h"], ["d"]), *ERF[1:], *LAST],
}  # fmt: skip
OTHERS: dict[str, Nodes] = {
    "another scale": [node("Div", ["h", "two"], ["d"]), *ERF[1:], *LAST],
    "no half": [*ERF, node("Mul", ["h", "p"], ["g"])],
    "of another value": [node("Relu", ["h"], ["r"]), *ERF, node("Mul", ["r", "p"], ["m"]), LAST[1]],
    "read elsewhere": [
        *ERF, node("Mul", ["h", "p"], ["m"]), node("Mul", ["m", "half"], ["g0"]), node("Add", ["g0", "e"], ["g"]),
    ],
}  # fmt: skip


def _file(nodes: Nodes, path: Path) -> Path:
    numbers = {"root": ROOT, "one": np.float32(1), "half": HALF, "two": np.float32(2), "inverse": np.float32(0.5**0.5)}
    weights = {**numbers, "w": drawn(6, 5), "v": drawn(5, 3, seed=1)}
    return saved(model([*HEAD, *nodes, node("MatMul", ["g", "v"], ["logits"])], ["n", 6], weights=weights), path)


def _net(gate: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return gate(x @ torch.from_numpy(drawn(6, 5))) @ torch.from_numpy(drawn(5, 3, seed=1))


@pytest.mark.parametrize("name", FORMS)
def test_every_bracketing_is_one_gate(name: str, tmp_path: Path) -> None:
    pb = fxpullback.compile(_file(FORMS[name], tmp_path / "m.onnx"), torch.randn(2, 6))
    assert [(row.rule, row.module) for row in pb.ledger.rows if row.gate] == [("gelu", "/act/Erf")]
    x = torch.randn(3, 6)
    assert_near(pb(x, torch.tensor([0, 1, 2]))[0], _net(F.gelu, x), 1e-6)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_gelu_stays(name: str, tmp_path: Path) -> None:
    pb = fxpullback.compile(_file(OTHERS[name], tmp_path / "m.onnx"), torch.randn(2, 6), rules=EXACT)
    assert any(row.operator == "aten.erf" for row in pb.ledger.rows)
    assert not any(row.operator == "aten.gelu" for row in pb.ledger.rows)
