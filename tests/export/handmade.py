"""ONNX files made by hand, with the names and metadata of the contract: a linear network whose pullback is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from fxpullback.contract import metadata as md

CLASSES = ["ant", "bee", "crane, a bird", "crane, a machine", "zebra"]
SIZE = 8
Array = npt.NDArray[np.float32]


def weight() -> Array:
    """float32 [3, 5]: mean colour to logits."""
    return np.random.default_rng(0).normal(size=(3, len(CLASSES))).astype(np.float32)


def ledger() -> dict[str, Any]:
    """A ledger of three rows."""
    row = {"index": 0, "node": "mean", "module": "pool", "source": "net.py:12", "operator": "aten.mean.dim"}
    rest = {"verdict": "linear", "rule": None, "temperature": None, "pullback_nodes": 2, "reason": None}
    gate = {"index": 1, "node": "relu", "module": "act", "source": "net.py:13", "operator": "aten.relu.default"}
    soft = {"verdict": "softened", "rule": "relu", "temperature": 0.6, "pullback_nodes": 3, "reason": None}
    frozen = {
        "index": 2,
        "node": "norm",
        "module": "norm",
        "source": "net.py:14",
        "operator": "aten.layer_norm.default",
    }
    why = {"verdict": "frozen", "rule": "layer_norm", "temperature": None, "pullback_nodes": 4, "reason": "statistics"}
    return {"rows": [row | rest, gate | soft, frozen | why], "gates": 2, "softened": 1, "frozen": 1, "exact": 0}


def records(target: str, program: str, changes: Mapping[str, str | None]) -> dict[str, str]:
    """The metadata of a file; a change to None leaves that key out."""
    check = {"name": "logits", "measured": 0.0, "bound": 1e-6, "passed": True, "detail": "batch 3"}
    found: dict[str, str | None] = {
        md.VERSION: "0.1.0",
        md.RULES: json.dumps({"name": "semantic", "temperatures": {"relu": 0.6}}),
        md.PROGRAM: json.dumps({"name": program}),
        md.TARGET: target,
        md.LEDGER: json.dumps(ledger()),
        md.INPUTS: json.dumps({"explained": "input", "extras": []}),
        md.REWRITES: json.dumps({"constants": 2}),
        md.CERTIFICATE: json.dumps({"passed": True, "checks": [check], "environment": {"torch": "2.15.0"}}),
        md.PREPROCESSING: json.dumps({"size": [SIZE, SIZE], "resize": SIZE, "interpolation": "bilinear"}),
        md.CLASSES: json.dumps(CLASSES),
        md.WEIGHTS_SHA256: "0" * 64,
    }
    found.update({md.PREFIX + key: value for key, value in changes.items()})
    return {key: value for key, value in found.items() if value is not None}


def model(
    target: str = "index", program: str = "soft", changes: Mapping[str, str | None] = MappingProxyType({})
) -> onnx.ModelProto:
    """logits = mean(input) @ weight; pullback = its transpose, applied to the cotangent of `target`."""
    ints = {
        "area": [1.0 / SIZE**2], "axes": [2, 3], "depth": [len(CLASSES)], "hot_f": [0.0, 1.0], "split": [1, 1],
        "spread": [0, 3, 1, 1], "one": [1],
    }  # fmt: skip
    types = {"area": np.float32, "hot_f": np.float32}
    constants = [numpy_helper.from_array(np.array(v, types.get(k, np.int64)), k) for k, v in ints.items()]
    constants.append(numpy_helper.from_array(weight(), "weight"))
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
        node("MatMul", ["mean", "weight"], ["logits"]),
    ]
    match target:
        case "cotangent":
            nodes.append(node("Identity", ["target"], ["ct"]))
        case "top1":
            nodes += [node("ArgMax", ["logits"], ["top"], axis=1, keepdims=0), _one_hot("top", "ct")]
        case "index":
            nodes.append(_one_hot("target", "ct"))
        case "contrast":
            nodes += [node("Split", ["target", "split"], ["a2", "b2"], axis=1)]
            nodes += [node("Squeeze", [f"{k}2", "one"], [k]) for k in "ab"]
            nodes += [_one_hot("a", "hot_a"), _one_hot("b", "hot_b"), node("Sub", ["hot_a", "hot_b"], ["ct"])]
    nodes += [
        node("Transpose", ["weight"], ["weight_t"], perm=[1, 0]),
        node("MatMul", ["ct", "weight_t"], ["colour"]),
        node("Mul", ["colour", "area"], ["colour_mean"]),
        node("Reshape", ["colour_mean", "spread"], ["colour_4d"]),
        node("Shape", ["input"], ["shape"]),
        node("Expand", ["colour_4d", "shape"], ["pullback"]),
    ]
    outputs = [_value("logits", ["batch", len(CLASSES)]), _value("pullback", ["batch", 3, SIZE, SIZE])]
    if program == "ascent":
        nodes += [
            node("Add", ["input", "pullback"], ["counterfactual"]),
            node("ReduceMean", ["counterfactual", "axes"], ["mean2"], keepdims=0),
            node("MatMul", ["mean2", "weight"], ["counterfactual_logits"]),
        ]
        outputs += [_value("counterfactual", ["batch", 3, SIZE, SIZE])]
        outputs += [_value("counterfactual_logits", ["batch", len(CLASSES)])]
    used = {name for item in nodes for name in item.input}
    constants = [item for item in constants if item.name in used]
    graph = helper.make_graph(
        nodes, "handmade", [_value("input", ["batch", 3, SIZE, SIZE]), *_target(target)], outputs, constants
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(made, records(target, program, changes))
    return made


def write(
    path: Path, target: str = "index", program: str = "soft", changes: Mapping[str, str | None] = MappingProxyType({})
) -> Path:
    """Write `model(...)` to `path`."""
    made = model(target, program, changes)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, path)
    return path


def _value(name: str, shape: list[int | str], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _target(target: str) -> list[onnx.ValueInfoProto]:
    match target:
        case "index":
            return [_value("target", ["batch"], TensorProto.INT64)]
        case "contrast":
            return [_value("target", ["batch", 2], TensorProto.INT64)]
        case "cotangent":
            return [_value("target", ["batch", len(CLASSES)])]
    return []


def _one_hot(source: str, name: str) -> onnx.NodeProto:
    return helper.make_node("OneHot", [source, "depth", "hot_f"], [name], axis=1)
