"""The architectures that ship with onnx, as files with weights that are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, numpy_helper
from torch import Tensor

from fxpullback.importer.body import Call
from fxpullback.importer.load import load

LIGHT = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19",
    "zfnet512",
)  # fmt: skip
"""Architectures of onnx.backend.test, whose files hold no weights but constants."""


def light(name: str, path: Path) -> None:
    """An architecture of onnx.backend.test, its weights drawn: normal, as large as a layer's fan-in asks for; what
    batch norms hold is measured."""
    import onnx.backend.test

    folder = Path(onnx.backend.test.__file__).parent / "data" / "light"
    model = onnx.load(folder / f"light_{name}.onnx")
    _draw(model)
    onnx.save(model, path)
    if any(node.op_type == "BatchNormalization" for node in model.graph.node):
        _settle(model, path)
        onnx.save(model, path)


def _settle(model: ModelProto, path: Path) -> None:
    """Give batch norms the mean and variance of what reaches them, as training leaves them.

    With drawn ones what differs between two inputs dies out over a hundred layers, and float32 cannot tell their logits
    apart.
    """
    module = load(path)
    x = torch.randn(module.examples()[0].shape, generator=torch.Generator().manual_seed(0))
    found: dict[str, np.ndarray[Any, Any]] = {}

    def measure(call: Any, given: tuple[Tensor, ...]) -> None:
        values, _, _, mean, variance = given
        axes = [axis for axis in range(values.ndim) if axis != 1]
        mean.copy_(values.mean(axes))
        variance.copy_(values.var(axes))
        found.update({call.step.inputs[3]: mean.numpy().copy(), call.step.inputs[4]: variance.numpy().copy()})

    for child in module.children():
        if isinstance(child, Call) and child.step.node.kind == "BatchNormalization":
            child.register_forward_pre_hook(measure)
    with torch.no_grad():
        module(x)
    for tensor in model.graph.initializer:
        if tensor.name in found:
            tensor.CopyFrom(numpy_helper.from_array(found[tensor.name], tensor.name))


def _draw(model: ModelProto) -> None:
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    drawn = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for node in list(model.graph.node):
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes:
            made[node.output[0]] = [int(n) for n in shapes[node.input[0]]]
            model.graph.node.remove(node)
    roles = _roles(model)
    for name, sizes in made.items():
        model.graph.initializer.append(numpy_helper.from_array(_weights(drawn, sizes, roles.get(name, "")), name))
    for tensor in model.graph.initializer:
        held = numpy_helper.to_array(tensor)
        if held.dtype == np.float32 and tensor.name not in made and held.size > 1 and np.ptp(held) == 0:
            tensor.CopyFrom(
                numpy_helper.from_array(_weights(drawn, held.shape, roles.get(tensor.name, "")), tensor.name)
            )


def _roles(model: ModelProto) -> dict[str, str]:
    """What a weight is, where it is one number for each channel: a factor, or something that is added."""
    names = {"BatchNormalization": ("", "scale", "bias", "bias", "scale"), "Mul": ("scale",) * 2, "Add": ("bias",) * 2}
    return {
        value: names[node.op_type][i]
        for node in model.graph.node
        if node.op_type in names
        for i, value in enumerate(node.input)
    }


def _weights(drawn: np.random.Generator, sizes: Any, role: str) -> np.ndarray[Any, Any]:
    if role == "scale":
        return np.asarray(drawn.uniform(0.7, 1.3, sizes), np.float32)
    if role == "bias":
        return np.asarray(drawn.standard_normal(sizes) * 0.1, np.float32)
    fan = int(np.prod(sizes[1:])) if len(sizes) > 1 else 100
    return np.asarray(drawn.standard_normal(sizes) * (2 / max(fan, 1)) ** 0.5, np.float32)
