"""Loops whose length sizes and constants say, written out: the pullback is autograd's through the same steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

import fxpullback
from fxpullback import EXACT
from fxpullback.contract.errors import CaptureError
from fxpullback.export import to_onnx
from fxpullback.importer.load import load
from tests.helpers import assert_near
from tests.importer.graphs import drawn, model, node, saved

X, TARGET = torch.from_numpy(drawn(3, 5, 4, seed=3)).double(), torch.tensor([0, 2, 1])
W = drawn(4, 4, scale=0.7)


def assert_pullback(path: Path, original: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    pb = fxpullback.compile(load(path).double(), X, rules=EXACT)
    leaf = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(original(leaf)[range(3), TARGET].sum(), leaf)
    assert_near(pb(X, TARGET)[1], gradient, 1e-9)
    assert to_onnx(fxpullback.compile(path, X.float()), tmp_path / "explained.onnx")


def _body(inputs: list[tuple[str, int]], outputs: list[str], nodes: list[onnx.NodeProto]) -> onnx.GraphProto:
    given = [helper.make_tensor_value_info(name, kind, None if kind == FLOAT else []) for name, kind in inputs]
    return helper.make_graph(nodes, "body", given, [onnx.ValueInfoProto(name=name) for name in outputs])


FLOAT, LONG, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def _loop(most: int | None, below: int, *, on: str = "next") -> list[onnx.NodeProto]:
    """A recurrence over the second axis, as exporters of TensorFlow write it: a counter, a state, states collected."""
    body = _body(
        [("i", LONG), ("go", BOOL), ("counter", LONG), ("h", FLOAT)],
        ["again", "next", "new", "kept"],
        [
            node("Gather", ["steps", "counter"], ["now"], axis=0),
            node("MatMul", ["h", "w"], ["wh"]),
            node("Add", ["wh", "now"], ["sum"]),
            node("Tanh", ["sum"], ["new"], "cell/Tanh"),
            node("Constant", [], ["one"], value_int=1),
            node("Add", ["counter", "one"], ["next"]),
            node("Constant", [], ["below"], value_int=below),
            node("Less", [on, "below"], ["again"]),
            node("Identity", ["new"], ["kept"]),
        ],
    )
    return [
        node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        node("ReduceMean", ["x", "one axis"], ["mean"], keepdims=0),
        node("Sub", ["mean", "mean"], ["h0"]),
        node(
            "Loop", ["most" if most is not None else "", "go", "zero", "h0"], ["end", "last", "all"], "loop", body=body
        ),
    ]


def _weights(most: int | None) -> dict[str, np.ndarray]:
    held = {"w": W, "go": np.array(True), "zero": np.array(0), "one axis": np.array([1])}
    return held | ({} if most is None else {"most": np.array(most)})


def _steps(x: Tensor, count: int) -> list[Tensor]:
    found = [torch.zeros_like(x[:, 0])]
    for t in range(count):
        found.append(torch.tanh(found[-1] @ torch.from_numpy(W).double() + x[:, t]))
    return found[1:]


@pytest.mark.parametrize(("most", "below", "count"), [(5, 99, 5), (99, 4, 4), (None, 3, 3)])
def test_a_loop_ends_where_its_number_or_its_condition_says(
    most: int | None, below: int, count: int, tmp_path: Path
) -> None:
    nodes = [*_loop(most, below), node("Identity", ["last"], ["logits"])]
    path = saved(model(nodes, ["b", 5, 4], weights=_weights(most)), tmp_path / "m.onnx")
    assert_pullback(path, lambda x: _steps(x, count)[-1], tmp_path)


def test_what_a_loop_collects_is_stacked(tmp_path: Path) -> None:
    nodes = [*_loop(4, 99), node("ReduceMean", ["all", "zero axis"], ["logits"], keepdims=0)]
    made = model(nodes, ["b", 5, 4], weights={**_weights(4), "zero axis": np.array([0])})
    path = saved(made, tmp_path / "m.onnx")
    assert_pullback(path, lambda x: torch.stack(_steps(x, 4)).mean(0), tmp_path)


def test_nodes_of_every_step_are_found_in_the_ledger(tmp_path: Path) -> None:
    nodes = [*_loop(3, 99), node("Identity", ["last"], ["logits"])]
    pb = fxpullback.compile(saved(model(nodes, ["b", 5, 4], weights=_weights(3)), tmp_path / "m.onnx"), X.float())
    assert [row.module for row in pb.ledger.rows if row.gate] == ["cell/Tanh"] * 3


@pytest.mark.parametrize(("backwards", "axis"), [(0, 1), (1, 1), (0, 2)])
def test_a_scan_goes_along_an_axis(backwards: int, axis: int, tmp_path: Path) -> None:
    body = _body(
        [("h", FLOAT), ("now", FLOAT)],
        ["new", "kept"],
        [node("Add", ["h", "now"], ["sum"]), node("Tanh", ["sum"], ["new"]), node("Mul", ["new", "now"], ["kept"])],
    )
    nodes = [
        node("ReduceMean", ["x", "axes"], ["h0"], keepdims=0),
        node(
            "Scan", ["h0", "x"], ["last", "all"], "scan", body=body, num_scan_inputs=1, scan_input_axes=[axis],
            scan_input_directions=[backwards], scan_output_axes=[axis], scan_output_directions=[backwards],
        ),
        node("Mul", ["all", "all"], ["squares"]),
        node("ReduceSum", ["squares", "axes"], ["logits"], keepdims=0),
    ]  # fmt: skip

    def original(x: Tensor) -> Tensor:
        h, kept = x.mean(axis), []
        for t in reversed(range(x.shape[axis])) if backwards else range(x.shape[axis]):
            h = torch.tanh(h + x.select(axis, t))
            kept.append(h * x.select(axis, t))
        return (torch.stack(kept[::-1] if backwards else kept, axis) ** 2).sum(axis)

    path = saved(model(nodes, ["b", 5, 4], weights={"axes": np.array([axis])}), tmp_path / "m.onnx")
    assert_pullback(path, original, tmp_path)


def test_a_loop_that_stops_at_a_value_is_refused(tmp_path: Path) -> None:
    nodes = _loop(None, 3)
    body = nodes[-1].attribute[0].g
    body.node[-2].input[0] = "size"
    body.node.insert(4, node("ReduceSum", ["new"], ["sum of all"], keepdims=0))
    body.node.insert(5, node("Cast", ["sum of all"], ["size"], to=LONG))
    made = model([*nodes, node("Identity", ["last"], ["logits"])], ["b", 5, 4], weights=_weights(None))
    with pytest.raises(CaptureError, match='Loop "loop": its condition depends on the values of the model'):
        fxpullback.compile(saved(made, tmp_path / "m.onnx"), X.float())


def test_a_loop_over_a_free_size_is_refused(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Constant", [], ["first"], value_int=0),
        node("Gather", ["shape", "first"], ["most"]),
        *_loop(1, 99),
        node("Identity", ["last"], ["logits"]),
    ]
    weights = _weights(None)
    with pytest.raises(CaptureError, match='Loop "loop": the number of its steps depends on a size that is free'):
        fxpullback.compile(saved(model(nodes, ["b", 5, 4], weights=weights), tmp_path / "m.onnx"), X.float())


def test_a_loop_without_end_is_refused(tmp_path: Path) -> None:
    made = model(
        [*_loop(None, 10**9, on="i"), node("Identity", ["last"], ["logits"])], ["b", 5, 4], weights=_weights(None)
    )
    body = made.graph.node[3].attribute[0].g
    body.node[0].input[1] = "start"
    body.node.insert(0, node("Constant", [], ["start"], value_int=0))
    with pytest.raises(CaptureError, match="it runs more than 1024 steps"):
        fxpullback.compile(saved(made, tmp_path / "m.onnx"), X.float())
