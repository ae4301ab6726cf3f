"""Whole networks with random weights: eager against ONNX Runtime, captured at batch 2, run at batch 3."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import timm
import torch
from torch import nn

from fxpullback.contract.errors import ExportError
from fxpullback.export.onnx.translate import translate
from fxpullback.export.onnx.translate.engine import merge
from tests.export.onnx.lifting import Call, lifted, lowered, run
from tests.export.onnx.test_translate import BANNED

SIZES = {"levit_128s": 224, "swin_tiny_patch4_window7_224": 224, "vit_tiny_patch16_224": 224}
NETWORKS = [
    "resnet18",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "convnext_atto",
    "mobilenetv3_small_100",
    "levit_128s",
    "pvt_v2_b0",
    "efficientnet_b0",
]


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False).eval()


@pytest.mark.filterwarnings("ignore:The tensor attribute")  # caches that timm keeps, made by the capture
@pytest.mark.parametrize("name", NETWORKS)
def test_network_agrees_with_eager(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    model, size = network(name), SIZES.get(name, 64)
    with torch.no_grad():
        graph = lowered(model, (torch.randn(2, 3, size, size),))
        translated = translate(graph)
        x = torch.randn(3, 3, size, size)
        expected = model(x).numpy()
    capfd.readouterr()
    (result,) = run(translated, x)
    assert capfd.readouterr().err == ""
    assert np.abs(result - expected).max() <= 1e-5 * np.abs(expected).max()
    operators = [node.op_type for node in translated.graph]
    assert not set(operators) & BANNED
    assert operators.count("Shape") <= 1
    assert [value.shape[0] for value in translated.graph.inputs if value.shape] == [ir.SymbolicDim("batch")]


def small(function: Any, *args: torch.Tensor, constants: tuple[torch.Tensor, ...] = ()) -> ir.Model:
    return translate(lifted(Call(function, constants), args))


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_weight_used_twice_is_one_initializer() -> None:
    weight = torch.randn(4, 4)
    model = small(lambda x, w: torch.nn.functional.linear(x, w) @ w, torch.randn(2, 3, 4), constants=(weight,))
    assert [value.shape for value in model.graph.initializers.values()] == [ir.Shape([4, 4])]


def test_same_expression_is_emitted_once() -> None:
    model = small(lambda x: torch.relu(x) + torch.relu(x).sin() * torch.relu(x).sin(), torch.randn(2, 4))
    assert sorted(operators(model)) == ["Add", "Mul", "Relu", "Sin"]


def test_nodes_are_named_after_the_graph() -> None:
    model = small(lambda x: torch.relu(x).sin() + 1, torch.randn(2, 4))
    assert [node.name for node in model.graph] == ["relu", "sin", "add"]


def test_nodes_say_their_module() -> None:
    model = translate(lifted(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (torch.randn(2, 4),)))
    assert [node.metadata_props["fxpullback.module"] for node in model.graph] == ["0", "1"]


def test_free_batch_needs_no_shape_nodes() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        split = x.reshape(x.shape[0], 2, 6).transpose(1, 2).reshape(x.shape[0] * 6, 2)
        return split.reshape(x.shape[0], -1).unsqueeze(1).expand(-1, 3, -1)

    model = small(forward, torch.randn(2, 12))
    assert set(operators(model)) <= {"Reshape", "Transpose", "Unsqueeze", "Expand"}


def test_free_height_and_width() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    dims = {0: torch.export.Dim("batch"), 2: torch.export.Dim("h", min=8), 3: torch.export.Dim("w", min=8)}
    with torch.no_grad():
        model = translate(lifted(module, (torch.randn(2, 3, 16, 12),), dims=(dims,)))
        x = torch.randn(3, 3, 20, 24)
        np.testing.assert_allclose(run(model, x)[0], module(x).numpy(), rtol=1e-5, atol=1e-6)
    assert model.graph.inputs[0].shape == ir.Shape(["batch", 3, "height", "width"])


def test_outputs_that_are_inputs_or_twice_the_same() -> None:
    model = small(lambda x, w: (x, x.sin(), w, x.sin()), torch.randn(2, 4), constants=(torch.ones(3),))
    x = torch.randn(3, 4)
    results = run(model, x)
    for result, expected in zip(results, (x, x.sin(), torch.ones(3), x.sin()), strict=True):
        np.testing.assert_allclose(result, expected.numpy(), rtol=1e-6)


def test_unknown_operator_says_what_and_where() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x)  # type: ignore[no-any-return]

    with pytest.raises(ExportError, match=r"no ONNX translation for aten\.special_bessel_j0\.default, at 0 \("):
        translate(lifted(nn.Sequential(Net()), (torch.rand(2, 4),)))


def test_two_translators_for_one_operator() -> None:
    table = {torch.ops.aten.relu.default: lambda b, x: x}
    with pytest.raises(ExportError, match=r"two translators for aten\.relu\.default"):
        merge(table, table)
