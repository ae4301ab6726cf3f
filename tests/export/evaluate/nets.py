"""Networks and pictures so small that every metric can be worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.export import handmade

SIZE = 8
Array = handmade.Array


def weights() -> Array:
    """float32 [4, 3, 8, 8]: class k looks at quarter k, and a little at all of the rest."""
    found = np.full((4, 3, SIZE, SIZE), 0.01, np.float32)
    for k in range(4):
        row, column = divmod(k, 2)
        found[k, :, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] = 0.3 + 0.1 * k
    return found


COLOURS = np.array([[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]], np.float32)
"""Red, green, blue and white: what the classes of a network of colours look for, wherever it is."""


def colour_weights() -> Array:
    """float32 [4, 3, 8, 8]: class k looks for colour k."""
    strength = np.linspace(0.9, 1.1, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    return COLOURS[:, :, None, None] * strength


def linear(path: Path, held: Array | None = None, *, target: str = "index", rules: str = "semantic") -> Path:
    """A file: logits are the picture times the weights of each class, the pullback is those of the class asked for."""
    held = (weights() if held is None else held).reshape(4, -1)
    constants = [
        numpy_helper.from_array(np.array([0, -1], np.int64), "row"),
        numpy_helper.from_array(np.array([-1, 3, SIZE, SIZE], np.int64), "picture"),
        numpy_helper.from_array(held.T.copy(), "weight"),
        numpy_helper.from_array(held, "weight_t"),
    ]
    node = helper.make_node
    nodes = [node("Reshape", ["input", "row"], ["flat"]), node("MatMul", ["flat", "weight"], ["logits"])]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])]
    if target == "top1":
        nodes.append(node("ArgMax", ["logits"], ["class"], axis=1, keepdims=0))
        nodes.append(node("Gather", ["weight_t", "class"], ["rows"], axis=0))
    elif target == "cotangent":
        inputs.append(helper.make_tensor_value_info("target", TensorProto.FLOAT, ["batch", 4]))
        nodes.append(node("MatMul", ["target", "weight_t"], ["rows"]))
    else:
        inputs.append(helper.make_tensor_value_info("target", TensorProto.INT64, ["batch"]))
        nodes.append(node("Gather", ["weight_t", "target"], ["rows"], axis=0))
    nodes.append(node("Reshape", ["rows", "picture"], ["pullback"]))
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4]),
        helper.make_tensor_value_info("pullback", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE]),
    ]
    graph = helper.make_graph(nodes, "linear", inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    changes = {"classes": '["ant", "bee", "cat", "dog"]', "rules": f'{{"name": "{rules}", "temperatures": {{}}}}'}
    helper.set_model_props(made, handmade.records(target, "soft", changes))
    onnx.save(made, path)
    return path


def folder(path: Path, count: int = 4, *, labels: bool = True, masks: bool = False, colours: bool = False) -> Path:
    """A folder of pictures: picture k is bright in the quarter that class k % 4 looks at, or has colour k % 4."""
    path.mkdir()
    lines = ["file,class_index,mask"]
    rng = np.random.default_rng(0)
    for k in range(count):
        pixels = rng.integers(60, 120, (SIZE, SIZE, 3), dtype=np.uint8)
        row, column = divmod(k % 4, 2)
        at = (slice(row * 4, row * 4 + 4), slice(column * 4, column * 4 + 4))
        pixels[at] = rng.integers(200, 256, (4, 4, 3))
        if colours:
            pixels[:] = (COLOURS[k % 4] + 1) * 127.5
        Image.fromarray(pixels).save(path / f"{k}.png")
        if masks:
            mask = np.zeros((SIZE, SIZE), np.uint8)
            mask[at] = 255
            Image.fromarray(mask).save(path / f"mask{k}.png")
        lines.append(f"{k}.png,{k % 4},{f'mask{k}.png' if masks else ''}")
    if labels:
        (path / "labels.csv").write_text("\n".join(lines) + "\n")
    return path
