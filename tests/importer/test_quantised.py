"""Quantised files: activations are gates of fake quantisation, rounded as ONNX says; computed scales are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import EXACT
from fxpullback.contract.errors import CaptureError
from fxpullback.export import Session, to_onnx
from fxpullback.importer.load import load
from tests.helpers import assert_near, draw
from tests.importer.graphs import drawn, model, node, saved

TENTH = np.float32(0.1)
CT = "cotangent"


def pair(x: str, out: str, scale: str, zero: str, **more: Any) -> list[onnx.NodeProto]:
    """A quantiser and what reads it again."""
    return [
        node("QuantizeLinear", [x, scale, zero], [f"{out}_q"], f"/{out}/Quantize", **more),
        node("DequantizeLinear", [f"{out}_q", scale, zero], [out], f"/{out}/Dequantize", **more),
    ]


def stepped(scale: Any, zero: Any, path: Path, **more: Any) -> Path:
    """Quantised behind one matrix and in front of another."""
    nodes = [
        node("MatMul", ["x", "w"], ["h"]), *pair("h", "d", "s", "z", **more), node("MatMul", ["d", "v"], ["logits"]),
    ]  # fmt: skip
    weights = {"w": drawn(6, 4), "v": drawn(4, 3, seed=1), "s": scale, "z": zero}
    return saved(model(nodes, ["n", 6], weights=weights, opset=21), path)


def straight(x: Tensor, scale: Any, zero: Any, low: int, high: int) -> Tensor:
    """By hand: what is in the range passes its gradient, what is clipped none."""
    scale, zero = (torch.as_tensor(np.asarray(v, np.float64)).to(x.dtype) for v in (scale, zero))
    level = torch.round(x.detach() / scale) + zero
    value = (level.clamp(low, high) - zero) * scale
    passed = x * ((level >= low) & (level <= high))
    made: Tensor = value + (passed - passed.detach())  # in this order: adding to a level would move it
    return made


KINDS = {
    "unsigned": (TENTH, np.uint8(3), 0, 255),
    "signed": (np.float32(0.01), np.int8(-5), -128, 127),
    "sixteen bits": (np.float32(0.0001), np.int16(100), -32768, 32767),
    "channels": (np.array([0.1, 0.02, 0.007, 0.3], np.float32), np.array([0, 3, -7, 100], np.int8), -128, 127),
}


@pytest.mark.parametrize("name", KINDS)
def test_exact_passes_what_is_not_clipped(name: str, tmp_path: Path) -> None:
    scale, zero, low, high = KINDS[name]
    x = draw(5, 6, seed=2) * 1.5
    imported = load(stepped(scale, zero, tmp_path / "q.onnx", axis=-1)).double()
    ct = draw(5, 3, seed=3)
    leaf = x.clone().requires_grad_()
    hidden = straight(leaf @ torch.from_numpy(drawn(6, 4)).double(), scale, zero, low, high)
    logits = hidden @ torch.from_numpy(drawn(4, 3, seed=1)).double()
    (wanted,) = torch.autograd.grad(logits, leaf, ct)
    found = fxpullback.compile(imported, x[:2], rules=EXACT, target=CT)(x, ct)
    assert_near(found[0], logits.detach(), 1e-9)
    assert_near(found[1], wanted, 1e-9)


def test_a_quantiser_is_a_gate_with_the_rule_of_fake_quantisation(tmp_path: Path) -> None:
    path = stepped(TENTH, np.int8(0), tmp_path / "q.onnx")
    pb = fxpullback.compile(path, torch.randn(2, 6))
    assert [(r.rule, r.verdict, r.module) for r in pb.ledger.rows if r.gate] == [
        ("fake_quantize", "frozen", "/d/Quantize")
    ]
    exact = fxpullback.compile(path, torch.randn(2, 6), rules=EXACT)
    assert "straight through" in str(next(r.reason for r in exact.ledger.rows if r.gate))


def test_rounding_divides_by_the_scale_as_onnx_says(tmp_path: Path) -> None:
    """Halfway between two levels, where the inverse of the scale would give another one; and halves to even."""
    path = saved(model([*pair("x", "logits", "s", "z")], ["n", 64], weights={"s": TENTH, "z": np.int8(0)}),
                 tmp_path / "q.onnx")  # fmt: skip
    halves = np.float32((np.arange(128).reshape(2, 64) - 64 + 0.5) * 0.1)
    assert (np.round(halves / TENTH) != np.round(halves * (np.float32(1) / TENTH))).any()
    theirs = ort.InferenceSession(str(path)).run(None, {"x": halves})[0]
    pb = fxpullback.compile(path, torch.randn(2, 64))
    assert np.array_equal(pb(torch.from_numpy(halves), torch.tensor([0, 1]))[0].numpy(), theirs)
    to_onnx(pb, tmp_path / "explained.onnx")
    written = Session(tmp_path / "explained.onnx")(halves, np.array([0, 1]))
    assert np.array_equal(written.logits, theirs)


def test_another_scale_behind_the_quantiser_is_arithmetic(tmp_path: Path) -> None:
    nodes = [*pair("x", "d", "s", "z")[:1], node("DequantizeLinear", ["d_q", "t", "y"], ["logits"])]
    weights = {"s": TENTH, "z": np.int8(3), "t": np.float32(0.25), "y": np.int8(-2)}
    pb = fxpullback.compile(saved(model(nodes, ["n", 6], weights=weights), tmp_path / "q.onnx"), torch.randn(2, 6))
    assert pb.verify().passed


class Net(nn.Module):
    """A small convolutional network."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3))
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        y = y + F.leaky_relu(y) * torch.sigmoid(y)
        return self.last(y.mean((2, 3)))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "plain.onnx"
    torch.onnx.export(
        Net().eval(), (torch.randn(2, 3, 12, 12),), str(path), dynamo=False, input_names=["x"],
        dynamic_axes={"x": {0: "batch"}},
    )  # fmt: skip
    return path


def quantised(plain: Path, path: Path, *, pairs: bool, channels: bool) -> Path:
    """What ONNX Runtime's own tool makes of a file."""
    tools = pytest.importorskip("onnxruntime.quantization", reason="it needs packages beside ONNX Runtime")

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.given: Iterator[Any] = iter([{"x": drawn(4, 3, 12, 12, seed=seed)} for seed in range(3)])

        def get_next(self) -> Any:
            return next(self.given, None)

    form = tools.QuantFormat.QDQ if pairs else tools.QuantFormat.QOperator
    tools.quantize_static(
        str(plain), str(path), Reader(), quant_format=form, per_channel=channels, weight_type=tools.QuantType.QInt8
    )
    return path


def by_hand(path: Path, x: Tensor) -> Tensor:
    """The file with QDQ pairs, node by node."""
    graph = onnx.load(path).graph
    held: dict[str, Any] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    held["x"] = x
    for one in graph.node:
        given = [held[name] for name in one.input]
        said = {a.name: onnx.helper.get_attribute_value(a) for a in one.attribute}
        held[one.output[0]] = _made(one.op_type, given, said)
    made: Tensor = held[graph.output[0].name]
    return made


def _made(kind: str, given: list[Any], said: dict[str, Any]) -> Any:
    if kind == "Constant":
        return numpy_helper.to_array(said["value"])
    a, *rest = given
    if kind == "QuantizeLinear":
        low, high = (0, 255) if rest[1].dtype == np.uint8 else (-128, 127)
        return straight(a, rest[0], rest[1], low, high)
    if kind == "DequantizeLinear":
        if isinstance(a, Tensor):
            return a
        scale, zero = (v.reshape([-1, *[1] * (a.ndim - 1)]) if v.size > 1 else v for v in rest)
        return torch.from_numpy(((a.astype(np.float32) - zero.astype(np.float32)) * scale).astype(np.float32))
    calls: dict[str, Any] = {
        "Conv": lambda: F.conv2d(a, rest[0], rest[1], padding=said["pads"][0]),
        "MaxPool": lambda: F.max_pool2d(a, 2),
        "LeakyRelu": lambda: F.leaky_relu(a, said["alpha"]),
        "Sigmoid": lambda: torch.sigmoid(a),
        "Mul": lambda: a * rest[0],
        "Add": lambda: a + rest[0],
        "ReduceMean": lambda: a.mean((2, 3)),
        "Gemm": lambda: F.linear(a, *rest),
    }
    return calls[kind]()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("channels", [False, True])
def test_a_file_with_pairs_is_the_network_straight_through(plain: Path, tmp_path: Path, channels: bool) -> None:
    path = quantised(plain, tmp_path / "q.onnx", pairs=True, channels=channels)
    x, ct = torch.from_numpy(drawn(3, 3, 12, 12, seed=9)), torch.from_numpy(drawn(3, 4, seed=8))
    pb = fxpullback.compile(path, x[:2], rules=EXACT, target=CT)
    leaf = x.clone().requires_grad_()
    logits = by_hand(path, leaf)
    (wanted,) = torch.autograd.grad(logits, leaf, ct)
    found = pb(x, ct)
    assert_near(found[0], logits.detach(), 1e-5)
    assert_near(found[1], wanted, 1e-5)
    assert any("were dequantised" in note for note in pb.ledger.notes)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pairs", [True, False])
def test_static_files_are_certified(plain: Path, tmp_path: Path, pairs: bool) -> None:
    """Against ONNX Runtime with its kernels of integers; one quantiser for each rounding."""
    path = quantised(plain, tmp_path / "q.onnx", pairs=pairs, channels=True)
    pb = fxpullback.compile(path, torch.randn(2, 3, 12, 12))
    assert pb.verify().passed
    rules = [row.rule for row in pb.ledger.rows if row.gate]
    assert rules.count("fake_quantize") == sum(one.op_type[0] == "Q" for one in onnx.load(path).graph.node)
    assert {"max_pool", "leaky_relu", "sigmoid"} <= set(rules)
    assert any("4 constants of the file are stored quantised" in n or "6 constants" in n for n in pb.ledger.notes)


@pytest.mark.filterwarnings("ignore")
def test_scales_that_are_computed_are_refused(plain: Path, tmp_path: Path) -> None:
    tools = pytest.importorskip("onnxruntime.quantization", reason="it needs packages beside ONNX Runtime")
    tools.quantize_dynamic(str(plain), str(tmp_path / "q.onnx"))
    with pytest.raises(CaptureError, match=r"DynamicQuantizeLinear .*depend on the others.*quantize_static"):
        fxpullback.compile(tmp_path / "q.onnx", torch.randn(2, 3, 12, 12))


def test_products_of_integers_behind_a_fixed_scale(tmp_path: Path) -> None:
    nodes = [
        *pair("x", "d", "s", "z")[:1],
        node("MatMulInteger", ["d_q", "w", "z", "y"], ["sums"]),
        node("Cast", ["sums"], ["floats"], to=1),
        node("Mul", ["floats", "both"], ["logits"]),
    ]
    whole = np.random.default_rng(0).integers(-100, 100, (6, 3)).astype(np.int8)
    weights = {"s": TENTH, "z": np.uint8(120), "w": whole, "y": np.int8(2), "both": np.float32(0.001)}
    pb = fxpullback.compile(saved(model(nodes, ["n", 6], weights=weights), tmp_path / "q.onnx"), torch.randn(2, 6))
    assert pb.verify().passed
    assert [row.rule for row in pb.ledger.rows if row.gate] == ["fake_quantize"]


def test_arithmetic_on_levels_is_refused_by_name(tmp_path: Path) -> None:
    nodes = [*pair("x", "d", "s", "z")[:1], node("Cast", ["d_q"], ["logits"], "/odd/Cast", to=1)]
    path = saved(model(nodes, ["n", 6], weights={"s": TENTH, "z": np.int8(0)}), tmp_path / "q.onnx")
    with pytest.raises(CaptureError, match=r'Cast "/odd/Cast": it computes with integers .*QDQ'):
        fxpullback.compile(path, torch.randn(2, 6))
