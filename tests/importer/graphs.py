"""Small ONNX files for the tests, made node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Sizes = Sequence[int | str]


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], name: str = "", **attributes: Any) -> onnx.NodeProto:
    """A node; its name is its first output's where none is given."""
    return helper.make_node(kind, inputs, outputs, name=name or outputs[0], **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    sizes: Sizes,
    outputs: Sequence[str] = ("logits",),
    opset: int = 18,
    domains: Sequence[str] = (),
    weights: Mapping[str, Any] | None = None,
) -> onnx.ModelProto:
    """A model of one input `x` of floats."""
    initialisers = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(sizes))],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        initialisers,
    )
    for value, name in zip(graph.output, outputs, strict=True):
        value.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    versions = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=versions, ir_version=9)


def saved(made: onnx.ModelProto, path: Path) -> Path:
    """The model as a file."""
    onnx.save(made, path)
    return path


def drawn(*sizes: int, seed: int = 0, scale: float = 1.0) -> np.ndarray[Any, Any]:
    """Normal numbers, float32."""
    return (np.random.default_rng(seed).standard_normal(sizes) * scale).astype(np.float32)


def perceptron(batch: int | str = "batch") -> onnx.ModelProto:
    """Two linear layers with a ReLU between them."""
    nodes = [
        node("Gemm", ["x", "w1", "b1"], ["h"], "/first/Gemm"),
        node("Relu", ["h"], ["r"], "/act.0/Relu"),
        node("Gemm", ["r", "w2", "b2"], ["logits"], "/last/Gemm"),
    ]
    weights = {"w1": drawn(6, 8), "b1": drawn(8, seed=1), "w2": drawn(8, 3, seed=2), "b2": drawn(3, seed=3)}
    return model(nodes, [batch, 6], weights=weights)
