"""Softmax written out in a file is one softmax; what only looks like it stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

import fxpullback
from fxpullback import EXACT
from fxpullback.importer.load import load
from tests.helpers import assert_near
from tests.importer.graphs import drawn, model, node, saved

Nodes = list[onnx.NodeProto]
X, TARGET = torch.from_numpy(drawn(3, 5, 4, seed=2)).double(), torch.tensor([0, 2, 1])


def _exp(of: str) -> Nodes:
    return [node("Exp", [of], ["e"], "/attend/Exp"), node("ReduceSum", ["e", "axis"], ["s"], keepdims=1)]


SUB = node("Sub", ["x", "most"], ["less"])
FORMS: dict[str, tuple[Nodes, int]] = {
    "axes kept": ([node("ReduceMax", ["x", "axis"], ["most"]), SUB, *_exp("less"), node("Div", ["e", "s"], ["p"])], 2),
    "the axis in the middle": (
        [node("ReduceMax", ["x", "axis"], ["most"]), SUB, *_exp("less"), node("Div", ["e", "s"], ["p"])], 1,
    ),
    "nothing taken off": ([*_exp("x"), node("Div", ["e", "s"], ["p"])], 2),
    "axes put back, as JAX has it": (
        [
            node("Shape", ["x"], ["shape"]),
            node("Slice", ["shape", "first", "last"], ["outer"]),
            node("Concat", ["outer", "alone"], ["column"], axis=0),
            node("ReduceMax", ["x", "axis"], ["m0"], keepdims=0),
            node("Max", ["infinite", "m0"], ["m1"]),
            node("Reshape", ["m1", "column"], ["m2"]),
            node("Expand", ["m2", "column"], ["most"]),
            SUB,
            node("Exp", ["less"], ["e"], "/attend/Exp"),
            node("ReduceSum", ["e", "axis"], ["s0"], keepdims=0),
            node("Reshape", ["s0", "column"], ["s1"]),
            node("Expand", ["s1", "column"], ["s"]),
            node("Div", ["e", "s"], ["p"]),
        ],
        2,
    ),
}  # fmt: skip
OTHERS: dict[str, Nodes] = {
    "over a sum of others": [
        node("Exp", ["x"], ["e"]), node("Abs", ["x"], ["a"]), node("ReduceSum", ["a", "axis"], ["s"]),
        node("Div", ["e", "s"], ["p"]),
    ],
    "read elsewhere": [*_exp("x"), node("Div", ["e", "s"], ["p0"]), node("Mul", ["p0", "e"], ["p"])],
    "the least taken off, of a sum along two axes": [
        node("Exp", ["x"], ["e"]), node("ReduceSum", ["e", "both"], ["s"]), node("Div", ["e", "s"], ["p"]),
    ],
}  # fmt: skip


def _file(nodes: Nodes, axis: int, path: Path) -> Path:
    weights = {
        "axis": np.array([axis]), "both": np.array([1, 2]), "first": np.array([0]), "last": np.array([2]),
        "alone": np.array([1]), "infinite": np.float32(-np.inf), "v": drawn(20, 3, seed=1),
    }  # fmt: skip
    head = [node("Mul", ["p", "x"], ["q"]), node("Flatten", ["q"], ["f"]), node("MatMul", ["f", "v"], ["logits"])]
    return saved(model([*nodes, *head], ["n", 5, 4], weights=weights), path)


def _gradient(shares: Tensor, leaf: Tensor) -> Tensor:
    logits = (shares * leaf).flatten(1) @ torch.from_numpy(drawn(20, 3, seed=1)).double()
    return torch.autograd.grad(logits[range(3), TARGET].sum(), leaf)[0]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_one_softmax(name: str, tmp_path: Path) -> None:
    nodes, axis = FORMS[name]
    path = _file(nodes, axis, tmp_path / "m.onnx")
    pb = fxpullback.compile(path, X.float())
    rows = [row for row in pb.ledger.rows if row.gate]
    assert [(row.operator, row.module) for row in rows if "softmax" in row.operator] == [
        ("aten.softmax.int", "/attend/Exp")
    ]
    assert not any("exp" in row.operator for row in rows)
    exact = fxpullback.compile(load(path).double(), X, rules=EXACT)
    leaf = X.clone().requires_grad_()
    assert_near(exact(X, TARGET)[1], _gradient(torch.softmax(leaf, axis), leaf), 1e-9)


@pytest.mark.parametrize("name", OTHERS)
def test_what_only_looks_like_it_stays(name: str, tmp_path: Path) -> None:
    path = _file(OTHERS[name], 2, tmp_path / "m.onnx")
    exact = fxpullback.compile(load(path).double(), X, rules=EXACT)
    assert not any("softmax" in row.operator for row in exact.ledger.rows)
    leaf = X.clone().requires_grad_()
    e = leaf.exp()
    shares = {
        "over a sum of others": lambda: e / leaf.abs().sum(2, keepdim=True),
        "read elsewhere": lambda: e / e.sum(2, keepdim=True) * e,
        "the least taken off, of a sum along two axes": lambda: e / e.sum((1, 2), keepdim=True),
    }[name]()
    assert_near(exact(X, TARGET)[1], _gradient(shares, leaf), 1e-9)


def test_an_output_that_is_a_softmax_written_out_is_said_to_be_one(tmp_path: Path) -> None:
    path = saved(
        model([*_exp("x"), node("Div", ["e", "s"], ["logits"])], ["n", 4], weights={"axis": np.array([1])}),
        tmp_path / "m.onnx",
    )
    assert any("is made by Softmax" in note for note in fxpullback.compile(path).ledger.notes)
