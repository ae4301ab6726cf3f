"""Ids that a file writes out as ones and zeros: they are looked up, and what they are looked up as is explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

import fxpullback
from fxpullback import EXACT
from fxpullback.contract.errors import CaptureError, InputError
from fxpullback.export import to_onnx
from fxpullback.importer.load import load
from tests.helpers import assert_near
from tests.importer.graphs import drawn, model, node, saved

IDS = torch.tensor([[0, 3, 6, 2, 1], [5, 5, 4, 0, 6], [1, 2, 3, 4, 5]], dtype=torch.int32)
TARGET = torch.tensor([0, 2, 1])
TABLE, HEAD = drawn(7, 4), drawn(20, 3, seed=1)


class Net(nn.Module):
    """An embedding, a gate, a head."""

    def forward(self, rows: Tensor) -> Tensor:
        """From what the ids are looked up as."""
        return torch.tanh(rows).flatten(1) @ torch.from_numpy(HEAD).to(rows.dtype)


def _file(nodes: list[onnx.NodeProto], path: Path, **weights: Any) -> Path:
    rest = [node("Tanh", ["rows"], ["t"]), node("Flatten", ["t"], ["f"]), node("MatMul", ["f", "head"], ["logits"])]
    made = model([*nodes, *rest], ["b", 5], weights={"table": TABLE, "head": HEAD, **weights}, opset=15)
    made.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.INT32, ["b", 5]))
    return saved(made, path)


def _compared(path: Path) -> Path:
    """As JAX writes it: a comparison with 0, 1, 2, ..., the ids repeated along an axis of one."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Slice", ["shape", "zero", "one"], ["batch"]),
        node("Concat", ["batch", "sizes"], ["wide"], axis=0),
        node("Reshape", ["x", "laid out"], ["column"]),
        node("Expand", ["column", "wide"], ["repeated"]),
        node("Equal", ["repeated", "count"], ["is"]),
        node("Cast", ["is"], ["ones"], to=1),
        node("MatMul", ["ones", "table"], ["rows"]),
    ]
    return _file(
        nodes, path, **{"laid out": np.array([-1, 5, 1]), "zero": np.array([0]), "one": np.array([1])},
        sizes=np.array([5, 1]), count=np.arange(7, dtype=np.int32).reshape(1, 1, 7),
    )  # fmt: skip


def _one_hot(path: Path) -> Path:
    nodes = [
        node("Cast", ["x"], ["long"], to=7),
        node("OneHot", ["long", "depth", "values"], ["ones"]),
        node("MatMul", ["ones", "table"], ["rows"], "/embed/MatMul"),
    ]
    return _file(nodes, path, depth=np.array(7), values=np.array([0, 1], np.float32))


def _turned(path: Path) -> Path:
    """The comparison the other way round, in 64 bits, the axis added by Unsqueeze."""
    nodes = [
        node("Cast", ["x"], ["long"], to=7),
        node("Unsqueeze", ["long", "last"], ["column"]),
        node("Equal", ["count", "column"], ["is"]),
        node("Cast", ["is"], ["ones"], to=1),
        node("Identity", ["ones"], ["same"]),
        node("MatMul", ["same", "table"], ["rows"]),
    ]
    return _file(nodes, path, last=np.array([-1]), count=np.arange(7))


@pytest.mark.parametrize("write", [_compared, _one_hot, _turned])
def test_what_ids_are_looked_up_as_is_explained(write: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "ids.onnx")
    pb = fxpullback.compile(load(path).double(), IDS, rules=EXACT, at="embeddings")
    leaf = torch.from_numpy(TABLE).double()[IDS.long()].requires_grad_()
    (gradient,) = torch.autograd.grad(Net()(leaf)[range(3), TARGET].sum(), leaf)
    assert_near(pb(IDS, TARGET)[1], gradient, 1e-9)


@pytest.mark.parametrize("write", [_compared, _one_hot, _turned])
def test_examples_are_ids_that_there_are(write: Any, tmp_path: Path) -> None:
    (ids,) = load(write(tmp_path / "ids.onnx")).examples()
    assert ids.dtype is torch.int32
    assert 0 <= int(ids.min()) < int(ids.max()) < 7


def test_the_file_is_certified_and_the_ledger_says_where(tmp_path: Path) -> None:
    pb = fxpullback.compile(_one_hot(tmp_path / "ids.onnx"), IDS, at="embeddings")
    assert to_onnx(pb, tmp_path / "explained.onnx")
    assert any("ids are looked up at /embed/MatMul" in note for note in pb.ledger.notes)


def test_an_id_without_a_row_is_refused_not_taken_for_another(tmp_path: Path) -> None:
    pb = fxpullback.compile(_one_hot(tmp_path / "ids.onnx"), IDS, at="embeddings")
    for wrong in (-1, 7):
        with pytest.raises(InputError, match=f"there is no id {wrong}; the table has 7 rows"):
            pb(torch.full((1, 5), wrong, dtype=torch.int32), torch.tensor([0]))


def _wrapped(path: Path, by: int = 7) -> Path:
    """As Keras writes it: those below zero count from the end, the choice written out in whole numbers."""
    nodes = [
        node("Add", ["x", "by"], ["moved"]),
        node("Less", ["x", "zero"], ["below"]),
        node("Not", ["below"], ["above"]),
        node("Cast", ["below"], ["one"], to=6),
        node("Cast", ["above"], ["other"], to=6),
        node("Mul", ["one", "moved"], ["a"]),
        node("Mul", ["other", "x"], ["b"]),
        node("Add", ["a", "b"], ["index"]),
        node("Gather", ["table", "index"], ["rows"]),
    ]
    return _file(nodes, path, by=np.int32(by), zero=np.int32(0))


def _kept(path: Path, last: int = 6) -> Path:
    """As JAX writes it: those outside are moved to the ends."""
    nodes = [
        node("Max", ["x", "zero"], ["low"]),
        node("Min", ["low", "last"], ["index"]),
        node("Gather", ["table", "index"], ["rows"]),
    ]
    return _file(nodes, path, zero=np.int32(0), last=np.int32(last))


@pytest.mark.parametrize("write", [_wrapped, _kept])
def test_ids_that_are_moved_where_they_are_outside_are_the_ids(write: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "ids.onnx")
    pb = fxpullback.compile(load(path).double(), IDS, rules=EXACT, at="embeddings")
    leaf = torch.from_numpy(TABLE).double()[IDS.long()].requires_grad_()
    (gradient,) = torch.autograd.grad(Net()(leaf)[range(3), TARGET].sum(), leaf)
    assert_near(pb(IDS, TARGET)[1], gradient, 1e-9)
    with pytest.raises(InputError, match="there is no id -1"):
        pb(torch.full((1, 5), -1, dtype=torch.int32), torch.tensor([0]))
    assert any(
        "has no row for are refused" in note for note in fxpullback.compile(path, IDS, at="embeddings").ledger.notes
    )


def test_ids_that_are_moved_inside_the_table_are_not_the_ids(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="integers that are computed of it do not count"):
        fxpullback.compile(_kept(tmp_path / "ids.onnx", last=5), IDS, at="embeddings")


def test_other_comparisons_are_no_lookups(tmp_path: Path) -> None:
    nodes = [
        node("Unsqueeze", ["x", "last"], ["column"]),
        node("Equal", ["column", "count"], ["is"]),
        node("Cast", ["is"], ["ones"], to=1),
        node("MatMul", ["ones", "table"], ["rows"]),
    ]
    backwards = np.arange(7, dtype=np.int32)[::-1].copy()
    path = _file(nodes, tmp_path / "ids.onnx", last=np.array([-1]), count=backwards)
    with pytest.raises(CaptureError, match="looked up in no embedding table"):
        fxpullback.compile(path, IDS, at="embeddings")


def test_ids_of_an_input_that_is_not_explained_stay_ones_and_zeros(tmp_path: Path) -> None:
    nodes = [
        node("OneHot", ["kind", "depth", "values"], ["ones"]),
        node("MatMul", ["ones", "w"], ["h"]),
        node("Add", ["x", "h"], ["s"]),
        node("Tanh", ["s"], ["logits"]),
    ]
    weights = {"w": drawn(7, 4), "depth": np.array(7), "values": np.array([0, 1], np.float32)}
    made = model(nodes, ["b", 4], weights=weights)
    made.graph.input.append(helper.make_tensor_value_info("kind", TensorProto.INT64, ["b"]))
    path, kind = saved(made, tmp_path / "m.onnx"), torch.tensor([0, 9, 3])
    pb = fxpullback.compile(path, (torch.zeros(3, 4), torch.tensor([0, 6, 3])), rules=EXACT)
    rows = torch.from_numpy(weights["w"])[[0, 0, 3]] * torch.tensor([[1.0], [0.0], [1.0]])
    assert_near(pb(torch.zeros(3, 4), TARGET, kind)[0], torch.tanh(rows), 1e-6)


@pytest.mark.parametrize("end", [10**9, 2**31 - 1, 2**63 - 1])
def test_a_slice_to_the_end_leaves_the_batch_free(end: int, tmp_path: Path) -> None:
    nodes = [node("Slice", ["x", "starts", "ends", "axes"], ["s"]), node("Tanh", ["s"], ["logits"])]
    weights = {"starts": np.array([0, 1]), "ends": np.array([end, 4]), "axes": np.array([0, 1])}
    pb = fxpullback.compile(saved(model(nodes, ["b", 4], weights=weights), tmp_path / "m.onnx"), rules=EXACT)
    assert pb(torch.zeros(5, 4), torch.zeros(5, dtype=torch.int64))[0].shape == (5, 3)
