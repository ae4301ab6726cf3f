"""`as_strided` of torch's exporter, written out as a lookup among all samples: a choice within each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import fxpullback
from fxpullback.errors import FxPullbackError


def written(path: Path, sizes: tuple[int, ...], places: np.ndarray, apart: int) -> Path:
    """`relu(x @ w)` laid one sample behind the other, looked up at `places` and `apart` for each sample more."""
    rng = np.random.default_rng(0)
    axes = list(range(1, 1 + places.ndim))
    constants = {
        "w": rng.standard_normal((4, int(np.prod(sizes)))).astype(np.float32), "flat": np.array([-1]),
        "zero": np.array(0), "one": np.array(1), "first": np.array(0), "apart": np.array(apart), "axes": np.array(axes),
        "places": places[None].astype(np.int64), "out": np.array([0, -1]),
        "head": rng.standard_normal((places.size, 3)).astype(np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["n"]),
        helper.make_node("Reshape", ["z", "flat"], ["all"]),
        helper.make_node("Range", ["zero", "n", "one"], ["numbers"]),
        helper.make_node("Mul", ["numbers", "apart"], ["begins"]),
        helper.make_node("Unsqueeze", ["begins", "axes"], ["starts"]),
        helper.make_node("Add", ["starts", "places"], ["index"]),
        helper.make_node("Gather", ["all", "index"], ["strided"], name="as_strided"),
        helper.make_node("Reshape", ["strided", "out"], ["rows"]),
        helper.make_node("MatMul", ["rows", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes, "strided", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    "places",
    [
        np.arange(6).reshape(6, 1, 1),
        np.arange(6).reshape(2, 3),
        np.arange(6).reshape(2, 3).T,
        np.array([[0, 1, 2], [1, 2, 3]]),
        np.array([5, 0]),
    ],
    ids=["whole", "reshaped", "turned", "windows", "some"],
)
def test_places_of_each_sample(tmp_path: Path, places: np.ndarray) -> None:
    path = written(tmp_path / "x.onnx", (6,), places, 6)
    pb = fxpullback.compile(path, rules=fxpullback.EXACT)
    held = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in onnx.load(path).graph.initializer}
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    target = torch.tensor([0, 1, 2])
    rows = torch.relu(x @ held["w"])[:, torch.from_numpy(places.reshape(-1))]
    logits = rows @ held["head"]
    (wanted,) = torch.autograd.grad(logits[range(3), target].sum(), x)
    found = pb(x.detach(), target)
    torch.testing.assert_close(found[0], logits.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], wanted, rtol=1e-5, atol=1e-5)
    assert pb.verify().passed


@pytest.mark.parametrize(("places", "apart"), [(np.arange(6), 5), (np.arange(6), 3), (np.array([0, 2]), 3)])
def test_places_of_other_samples_stay_refused(tmp_path: Path, places: np.ndarray, apart: int) -> None:
    with pytest.raises(FxPullbackError):
        fxpullback.compile(written(tmp_path / "x.onnx", (6,), places, apart))
