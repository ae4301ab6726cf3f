"""Logits at many positions of a file: held to ONNX Runtime at the positions that are chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import fxpullback
from fxpullback import EXACT
from fxpullback.contract.errors import CaptureError
from fxpullback.export import to_onnx
from fxpullback.importer.load import load
from fxpullback.importer.operators.table import OPERATORS
from tests.helpers import assert_near
from tests.importer.graphs import drawn, model, node, saved

X, TARGET = torch.from_numpy(drawn(3, 2, 4, 5)).double(), torch.tensor([0, 2, 1])
W = drawn(3, 2, 1, 1, seed=1)
PLACES = {
    "index": torch.tensor([[0, 4], [3, 1], [-1, 2]]),
    "mask": torch.from_numpy(drawn(3, 4, 5, seed=2) > 0),
    "weights": torch.from_numpy(drawn(3, 4, 5, seed=3)).double(),
}


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Three classes at each place of a map."""
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Tanh", ["c"], ["logits"])]
    return saved(model(nodes, ["b", 2, 4, 5], weights={"w": W}), tmp_path / "grid.onnx")


def _chosen(logits: torch.Tensor, kind: str) -> torch.Tensor:
    places = PLACES[kind]
    if kind == "index":
        return torch.stack([one[:, row, column] for one, (row, column) in zip(logits, places.tolist(), strict=True)])
    shares = places.to(logits.dtype)
    total = torch.einsum("bchw,bhw->bc", logits, shares)
    return total / shares.sum((1, 2))[:, None] if kind == "mask" else total


@pytest.mark.parametrize("kind", [*PLACES])
def test_the_pullback_is_that_of_the_places(grid: Path, kind: str, tmp_path: Path) -> None:
    pb = fxpullback.compile(load(grid).double(), X, rules=EXACT, positions=kind)
    leaf = X.clone().requires_grad_()
    logits = torch.tanh(torch.nn.functional.conv2d(leaf, torch.from_numpy(W).double()))
    (gradient,) = torch.autograd.grad(_chosen(logits, kind)[range(3), TARGET].sum(), leaf)
    assert_near(pb(X, TARGET, positions=PLACES[kind])[1], gradient, 1e-9)
    assert to_onnx(fxpullback.compile(grid, X.float(), positions=kind), tmp_path / "explained.onnx")


@pytest.mark.parametrize("kind", [*PLACES])
def test_a_file_that_is_not_computed_alike_is_refused(grid: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {**OPERATORS, "Tanh": lambda at, x: torch.sigmoid(x)}
    monkeypatch.setattr("fxpullback.importer.body.OPERATORS", wrong)
    with pytest.raises(CaptureError, match="is not computed as ONNX Runtime does"):
        fxpullback.compile(grid, X.float(), positions=kind)


@pytest.mark.parametrize("batch", ["b", 1])
def test_the_batch_may_be_the_second_axis(batch: str | int, tmp_path: Path) -> None:
    nodes = [
        node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        node("MatMul", ["steps", "w"], ["h"]),
        node("Reshape", ["h", "kept"], ["k"]),
        node("Tanh", ["k"], ["logits"]),
    ]
    weights = {"w": drawn(4, 3), "kept": np.array([0, 0, -1])}
    path = saved(model(nodes, [batch, 7, 4], weights=weights), tmp_path / "m.onnx")
    x, target, places = torch.from_numpy(drawn(3, 7, 4)).double(), TARGET, torch.tensor([0, 3, -1])
    pb = fxpullback.compile(load(path).double(), x, rules=EXACT, positions="index")
    leaf = x.clone().requires_grad_()
    logits = torch.tanh(leaf[range(3), places] @ torch.from_numpy(drawn(4, 3)).double())
    (gradient,) = torch.autograd.grad(logits[range(3), target].sum(), leaf)
    assert_near(pb(x, target, positions=places)[1], gradient, 1e-9)
    assert to_onnx(fxpullback.compile(path, positions="index"), tmp_path / "explained.onnx")


def test_positions_of_a_sequence(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Tanh", ["h"], ["logits"])]
    made: onnx.ModelProto = model(nodes, ["b", 7, 4], weights={"w": drawn(4, 3)})
    pb = fxpullback.compile(saved(made, tmp_path / "m.onnx"), torch.zeros(2, 7, 4), positions="index")
    logits = pb(torch.ones(2, 7, 4), torch.tensor([0, 1]), positions=torch.tensor([0, -1]))[0]
    assert_near(logits, torch.tanh(torch.from_numpy(drawn(4, 3).sum(0, keepdims=True))).expand(2, 3), 1e-6)
    assert np.isfinite(logits.numpy()).all()
