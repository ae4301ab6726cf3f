"""Sizes that a file keeps within bounds: `Clip` of shape arithmetic, as padding to a multiple is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

import fxpullback
from tests.importer.graphs import drawn, model, node, saved


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.FLOAT], ids=["whole", "floats"])
@pytest.mark.parametrize(("bounds", "pad"), [({"low": 0}, 2), ({"low": 0, "high": 1}, 1), ({"high": -1}, -1)])
def test_sizes_are_kept_within_bounds(tmp_path: Path, kind: int, bounds: dict[str, int], pad: int) -> None:
    floats = kind == TensorProto.FLOAT
    dtype = np.float32 if floats else np.int64
    weights = {name: np.array(value, dtype) for name, value in bounds.items()}
    weights |= {"at": np.array([1]), "less": np.array([4], dtype), "none": np.array([0, 0]), "zero": np.array([0])}
    weights |= {"w": drawn(6 + pad, 3)}
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "at"], ["size"]),
        node("Cast", ["size"], ["number"], to=kind),
        node("Sub", ["number", "less"], ["more"]),
        node("Clip", ["more", "low" if "low" in bounds else "", "high" if "high" in bounds else ""], ["kept"]),
        node("Cast", ["kept"], ["whole"], to=TensorProto.INT64),
        node("Concat", ["none", "zero", "whole"], ["pads"], axis=0),
        node("Pad", ["x", "pads"], ["wide"]),
        node("Relu", ["wide"], ["r"]),
        node("MatMul", ["r", "w"], ["logits"]),
    ]
    path = saved(model(nodes, ["batch", 6], weights=weights), tmp_path / "x.onnx")
    held = torch.from_numpy(onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[-1]).copy())
    x = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    wanted = torch.relu(torch.nn.functional.pad(x, (0, pad))) @ held
    found = fxpullback.compile(path)(x, torch.tensor([0, 1]))[0]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
