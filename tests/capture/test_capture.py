"""From a model to a functional graph with one spelling per operator."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.export import Dim
from torch.nn import functional as F

from fxpullback.capture import TrainingModeWarning, capture
from fxpullback.contract.errors import CaptureError
from fxpullback.graph.invariants import check_captured
from fxpullback.graph.ir import aten, calls, is_size, module_path, outputs, placeholders, source_line
from tests.helpers import Flat, draw, graph_of
from tests.networks import NETWORKS, SIZE, network

EXAMPLE = torch.zeros(1, *SIZE).double()


def operators(function: Callable[[Tensor], Any], *sizes: int) -> list[Any]:
    return [node.target for node in calls(graph_of(function, *sizes).graph) if not is_size(node)]


def relu_in_place(x: Tensor) -> Tensor:
    return (x + 0.0).relu_()


SQUARE, ROW = draw(4, 4), draw(4)
RELU, HARDTANH = aten.relu.default, aten.hardtanh.default
SPELLINGS: list[tuple[str, Callable[[Tensor], Any], Any]] = [
    ("nn.ReLU", nn.ReLU(), RELU),
    ("nn.ReLU-in-place", lambda x: nn.ReLU(inplace=True)(x + 1), RELU),
    ("F.relu", F.relu, RELU),
    ("torch.relu", torch.relu, RELU),
    ("relu_", relu_in_place, RELU),
    ("clamp-min", lambda x: x.clamp(min=0), RELU),
    ("clamp_min", lambda x: x.clamp_min(0.0), RELU),
    ("threshold", lambda x: F.threshold(x, 0.0, 0.0), RELU),
    ("nn.ReLU6", nn.ReLU6(), HARDTANH),
    ("F.relu6", F.relu6, HARDTANH),
    ("hardtanh-0-6", lambda x: F.hardtanh(x, 0.0, 6.0), HARDTANH),
    ("clamp-0-6", lambda x: x.clamp(0, 6), HARDTANH),
    ("nn.SiLU", nn.SiLU(inplace=True), aten.silu.default),
    ("F.gelu", F.gelu, aten.gelu.default),
    ("nn.Hardswish", nn.Hardswish(inplace=True), aten.hardswish.default),
    ("nn.Sigmoid", nn.Sigmoid(), aten.sigmoid.default),
    ("special.expit", torch.special.expit, aten.sigmoid.default),
    ("special.erf", torch.special.erf, aten.erf.default),
    ("F.softmax", lambda x: F.softmax(x, -1), aten.softmax.int),
    ("torch.max", lambda x: torch.max(x, ROW), aten.maximum.default),
    ("torch.min", lambda x: torch.min(x, ROW), aten.minimum.default),
    ("special.softmax", lambda x: torch.special.softmax(x, -1), aten.softmax.int),
    ("x.softmax", lambda x: x.softmax(-1), aten.softmax.int),
    ("rrelu", lambda x: F.rrelu(x, 0.1, 0.3), aten.leaky_relu.default),
    ("x.mm", lambda x: x.mm(SQUARE), aten.matmul.default),
    ("x.matmul", lambda x: torch.matmul(x, SQUARE), aten.matmul.default),
    ("x.var", lambda x: x.var(1, keepdim=True), aten.var.correction),
    ("var-correction", lambda x: torch.var(x, 1, correction=0, keepdim=True), aten.var.correction),
]


@pytest.mark.parametrize(("name", "function", "target"), SPELLINGS, ids=[name for name, _, _ in SPELLINGS])
def test_one_spelling(name: str, function: Callable[[Tensor], Any], target: Any) -> None:
    graph = graph_of(function, 4)
    found = {node.target for node in calls(graph.graph) if not is_size(node)}
    assert found - {aten.add.Tensor, aten.reshape.default} == {target}
    x = draw(3, 4) * 4
    assert torch.equal(graph(x)[0], function(x.clone()).reshape(3, -1))


@pytest.mark.parametrize(
    ("name", "target"), [("conv", aten.convolution.default), ("pool", aten.max_pool2d.default)], ids=["conv", "pool"]
)
def test_modules_and_functions_of_images(name: str, target: Any) -> None:
    conv = nn.Conv2d(3, 2, 3, padding="same").double()
    pairs: dict[str, list[Callable[[Tensor], Tensor]]] = {
        "conv": [conv, lambda x: F.conv2d(x, conv.weight, conv.bias, padding=1)],
        "pool": [
            nn.MaxPool2d(2),
            lambda x: F.max_pool2d(x, (2, 2)),
            lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
        ],
    }
    for function in pairs[name]:
        assert [op for op in operators(function, 3, 6, 6) if op is not aten.reshape.default] == [target]


def test_dropout_is_gone() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(3, 2, 16), nn.Dropout2d(0.5), nn.AlphaDropout(0.5), nn.Flatten())
    found = {node.target for node in calls(capture(model.double().eval(), EXAMPLE).graph) if not is_size(node)}
    assert found == {aten.convolution.default, aten.reshape.default}


def test_in_place_arithmetic_becomes_functional() -> None:
    def function(x: Tensor) -> Tensor:
        y = x * 1.0
        y += 2
        y.mul_(x)
        y[:, 0] = 3.0
        return y.add_(x[:, :1])

    graph = graph_of(function, 4)
    check_captured(graph)
    x = draw(3, 4)
    assert torch.equal(graph(x)[0], function(x))


@functools.cache
def captured(name: str) -> fx.GraphModule:
    return capture(network(name), EXAMPLE)


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_bit_for_bit(name: str, batch: int) -> None:
    model, graph = network(name), captured(name)
    check_captured(graph)
    assert len(placeholders(graph.graph)) == len(outputs(graph.graph)) == 1
    x = draw(batch, *SIZE)
    assert torch.equal(graph(x)[0], model(x))


def test_training_mode_is_switched_off_with_a_note() -> None:
    model = network("convolutional").train()
    model[5].eval()  # type: ignore[index]
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    with pytest.warns(TrainingModeWarning, match=r"model\.eval\(\)"):
        graph = capture(model, EXAMPLE)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    x = draw(2, *SIZE)
    assert torch.equal(graph(x)[0], network("convolutional")(x))


def test_partly_in_training_mode_is_switched_off_too() -> None:
    model = network("convolutional")
    model[1].train()  # type: ignore[index]
    graph = capture(model, EXAMPLE)
    assert model[1].training  # type: ignore[index]
    x = draw(2, *SIZE)
    assert torch.equal(graph(x)[0], network("convolutional")(x))


class Cached(nn.Module):
    """Keeps what it computed, as LeViT keeps its attention biases."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 2))
        self.cache: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if "bias" not in self.cache:
            self.cache["bias"] = self.weight.sum(0)
        return x.mean((2, 3)) @ self.weight + self.cache["bias"]


def test_caches_of_the_model_stay_empty() -> None:
    model = Cached().double().eval()
    graph = capture(model, EXAMPLE)
    assert not model.cache
    x = draw(2, *SIZE)
    assert torch.equal(graph(x)[0], model(x))


def exported(model: nn.Module, batch: int = 2) -> torch.export.ExportedProgram:
    shapes = ({0: Dim("batch")},) if batch > 1 else None
    return torch.export.export(model, (EXAMPLE.repeat(batch, 1, 1, 1),), dynamic_shapes=shapes)


def test_exported_program_and_file(tmp_path: Path) -> None:
    model = network("mobile")
    program = exported(model)
    before = str(program.graph)
    path = tmp_path / "model.pt2"
    torch.export.save(program, path)
    x = draw(3, *SIZE)
    for source in (program, path, str(path)):
        assert torch.equal(capture(source, EXAMPLE)(x)[0], model(x))
    assert str(program.graph) == before


def test_exported_program_of_a_fixed_batch_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"batch was fixed at 1\. Export it with a symbolic batch"):
        capture(exported(network("mobile"), batch=1), EXAMPLE)


def test_file_that_is_no_program(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"no file .*missing\.pt2"):
        capture(tmp_path / "missing.pt2", EXAMPLE)
    (tmp_path / "text.pt2").write_text("no program")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(CaptureError, match=r"text\.pt2 cannot be read as an exported program"):
            capture(tmp_path / "text.pt2", EXAMPLE)


def data_dependent(x: Tensor) -> Tensor:
    return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


def item(x: Tensor) -> Tensor:
    return x.mean((2, 3)) * float(x.max())


REFUSED: list[tuple[str, Callable[[Tensor], Any], str]] = [
    ("fixed-batch", lambda x: x.reshape(2, -1), "fixes the batch size|batch was fixed"),
    ("dict", lambda x: {"logits": x.mean((2, 3)), "map": x}, r"returns 2 values.*\[batch, classes\]"),
    ("tuple", lambda x: (x.mean((2, 3)), x.amax((2, 3))), r"returns 2 values.*\[batch, classes\]"),
    ("map", lambda x: x * 2, r"returns a tensor .*\[batch, classes\].*positions"),
    ("integers", lambda x: x.mean((2, 3)).argmax(1, keepdim=True), r"int64.*\[batch, classes\]"),
    ("constant", lambda x: torch.ones(x.shape[0], 3), "do not depend on the input"),
    ("number", lambda x: 3.0, "returns"),
    ("control-flow", data_dependent, "depends on the values of the input"),
    ("raises", lambda x: x @ torch.ones(7, 7), "cannot capture"),
]


class Bare(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


@pytest.mark.parametrize(("name", "function", "message"), REFUSED, ids=[name for name, _, _ in REFUSED])
def test_models_that_cannot_be_explained(name: str, function: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(CaptureError, match=f"(?s){message}"):
        capture(Bare(function).eval(), EXAMPLE)


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x + y).mean((2, 3))


def test_exported_program_of_two_inputs_wants_two_examples() -> None:
    batch = Dim("batch")
    pair = EXAMPLE.repeat(2, 1, 1, 1)
    program = torch.export.export(TwoInputs(), (pair, pair.clone()), dynamic_shapes=({0: batch}, {0: batch}))
    with pytest.raises(CaptureError, match=r"takes 2 inputs \(x, y\), and 1 examples were given"):
        capture(program, EXAMPLE)


@pytest.mark.parametrize(
    "example",
    [torch.zeros(3), torch.zeros(0, *SIZE), torch.zeros(1, *SIZE, dtype=torch.int64), "picture", None],
    ids=["vector", "empty", "integers", "text", "none"],
)
def test_bad_examples(example: Any) -> None:
    with pytest.raises(CaptureError, match=r"the example input is .*\[batch, \.\.\.\]"):
        capture(network("mobile"), example)


def test_not_a_model() -> None:
    with pytest.raises(CaptureError, match="cannot capture a function"):
        capture(data_dependent, EXAMPLE)  # type: ignore[arg-type]


def test_module_path_and_source_line_stay() -> None:
    graph = capture(network("transformer"), EXAMPLE)
    gelu = next(node for node in calls(graph.graph) if node.target is aten.gelu.default)
    assert module_path(gelu) == "mlp.body.2"
    attention = next(n for n in calls(graph.graph) if n.target is aten.scaled_dot_product_attention.default)
    assert module_path(attention) == "attention.body.1"
    lines = Path(network.__code__.co_filename).read_text(encoding="utf-8").splitlines()
    file, line = source_line(attention).split(":")
    assert file == "networks.py"
    assert "scaled_dot_product_attention" in lines[int(line) - 1]
    assert all(source_line(node) for node in calls(graph.graph) if not is_size(node))


def test_integer_buffers_and_shared_weights() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = self.first
            self.order = nn.Buffer(torch.tensor([2, 0, 1, 3]))

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.second(self.first(x[:, self.order]))
            return result

    model = Tied().double().eval()
    graph = capture(model, torch.zeros(1, 4).double())
    x = draw(3, 4)
    assert torch.equal(graph(x)[0], model(x))
    assert sum(node.op == "get_attr" for node in graph.graph.nodes) == 3


def test_flat_is_what_it_says() -> None:
    assert Flat(lambda x: x)(draw(2, 3, 4)).shape == (2, 12)
