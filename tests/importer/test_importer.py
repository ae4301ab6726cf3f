"""ONNX files as models: the same pullback as the module they were exported from, and whatever is wrong is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import EXACT
from fxpullback.contract.errors import CaptureError
from fxpullback.export import Session, to_onnx
from fxpullback.importer.operators.table import OPERATORS
from tests.helpers import assert_near
from tests.importer.graphs import drawn, model, node, perceptron, saved

TARGET = torch.tensor([0, 2, 1])


class Net(nn.Module):
    """What most exporters meet: a convolution, norms, gates, attention, pooling, a reshape."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.norm, self.qkv, self.mlp = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)
        self.bn.load_state_dict(
            {**self.bn.state_dict(), "running_var": torch.rand(8) + 0.5, "running_mean": torch.randn(8)}
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool2d(F.silu(self.bn(self.conv(x))), 2).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(y)).chunk(3, -1)
        y = y + torch.softmax(q @ k.transpose(1, 2) / 8**0.5, -1) @ v
        y = y + F.gelu(self.mlp(y))
        return self.head(y.mean(1))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return Net().eval()


def _export(net: nn.Module, path: Path, *, dynamo: bool, batch: int | None) -> Path:
    x = torch.randn(batch or 2, 3, 16, 16)
    if dynamo:
        pytest.importorskip("onnxscript", reason="torch's newer exporter writes with it")
        shapes = None if batch else ({0: torch.export.Dim("batch")},)
        torch.onnx.export(net, (x,), str(path), dynamo=True, dynamic_shapes=shapes, verbose=False)
    else:
        axes = None if batch else {"x": {0: "batch"}}
        torch.onnx.export(net, (x,), str(path), dynamo=False, input_names=["x"], dynamic_axes=axes)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rules", [EXACT, None], ids=["exact", "semantic"])
@pytest.mark.parametrize(("dynamo", "batch"), [(False, None), (False, 1), (False, 2), (True, None), (True, 1)])
def test_an_exported_network_is_the_module_again(
    net: nn.Module, tmp_path: Path, dynamo: bool, batch: int | None, rules: Any
) -> None:
    path = _export(net, tmp_path / "net.onnx", dynamo=dynamo, batch=batch)
    x = torch.randn(3, 3, 16, 16)
    found, wanted = (fxpullback.compile(m, x[:2], rules=rules)(x, TARGET) for m in (path, net))
    assert_near(found[0], wanted[0], 1e-5)
    assert_near(found[1], wanted[1], 1e-5)


def test_the_ledger_names_the_nodes_of_the_file(tmp_path: Path) -> None:
    pb = fxpullback.compile(saved(perceptron(), tmp_path / "p.onnx"), torch.randn(2, 6))
    assert [row.module for row in pb.ledger.rows if row.gate] == ["/act.0/Relu"]
    assert {"/first/Gemm", "/last/Gemm"} <= {row.module for row in pb.ledger.rows}
    assert not any(row.source for row in pb.ledger.rows)


def test_the_certificate_starts_from_the_file_in_onnx_runtime(tmp_path: Path) -> None:
    pb = fxpullback.compile(saved(perceptron(), tmp_path / "p.onnx"), torch.randn(2, 6))
    certificate = pb.verify()
    assert certificate.passed
    assert certificate.checks[0].name == "original file in ONNX Runtime: logits, batch 1"
    to_onnx(pb, tmp_path / "explained.onnx")
    session = Session(tmp_path / "explained.onnx")
    assert session.certificate is not None
    assert session.certificate["checks"][0]["name"] == certificate.checks[0].name


def test_a_file_that_is_computed_wrongly_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(perceptron(), tmp_path / "p.onnx")
    wrong = {**OPERATORS, "Relu": lambda at, x: F.leaky_relu(x, 0.1)}
    monkeypatch.setattr("fxpullback.importer.body.OPERATORS", wrong)
    with pytest.raises(CaptureError, match="original file in ONNX Runtime: logits, batch 1: off by"):
        fxpullback.compile(path, torch.randn(2, 6))


def test_any_value_of_the_file_may_be_explained(tmp_path: Path) -> None:
    made = perceptron()
    made.graph.node.append(node("Softmax", ["logits"], ["shares"]))
    made.graph.output[0].name = "shares"
    path = saved(made, tmp_path / "p.onnx")
    x = torch.randn(3, 6)
    shares = fxpullback.compile(path, x)
    assert "is made by Softmax" in shares.ledger.notes[-1]
    logits = fxpullback.compile(path, x, output="logits")
    assert_near(torch.softmax(logits(x, TARGET)[0], 1), shares(x, TARGET)[0], 1e-6)
    with pytest.raises(CaptureError, match="no value called 'nothing'"):
        fxpullback.compile(path, x, output="nothing")


def _quantised() -> onnx.ModelProto:
    """Weights and an activation that are quantised."""
    weight = np.random.default_rng(0).integers(-100, 100, (6, 3)).astype(np.int8)
    weights = {"s": np.float32(0.05), "z": np.int8(3), "w": weight, "sw": np.float32(0.02), "zw": np.int8(0)}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["w", "sw", "zw"], ["dw"]),
        node("MatMul", ["d", "dw"], ["logits"]),
    ]
    return model(
        nodes,
        ["n", 6],
        weights=weights,
    )


def _branched() -> onnx.ModelProto:
    inside = [
        helper.make_graph([node(kind, ["h"], [f"{kind}_out"])], kind, [], [onnx.ValueInfoProto(name=f"{kind}_out")])
        for kind in ("Relu", "Tanh")
    ]
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("If", ["yes"], ["r"], then_branch=inside[0], else_branch=inside[1]),
        node("MatMul", ["r", "v"], ["logits"]),
    ]
    return model(nodes, ["n", 6], weights={"w": drawn(6, 5), "v": drawn(5, 3), "yes": np.array(True)})


def _measured() -> onnx.ModelProto:
    """Shape arithmetic: a size is read, computed with, and used."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Unsqueeze", ["n", "axis"], ["n1"]),
        node("Concat", ["n1", "rest"], ["sizes"], axis=0),
        node("Reshape", ["x", "sizes"], ["h"]),
        node("ReduceMean", ["h", "two"], ["m"], keepdims=0),
        node("MatMul", ["m", "w"], ["logits"]),
    ]
    numbers = {"zero": np.int64(0), "axis": np.array([0]), "rest": np.array([3, 4]), "two": np.array([2])}
    return model(nodes, ["n", 2, 6], weights={**numbers, "w": drawn(3, 3)})


SPECIAL: dict[str, tuple[Callable[[], onnx.ModelProto], tuple[int, ...]]] = {
    "quantised": (_quantised, (6,)),
    "branched": (_branched, (6,)),
    "measured": (_measured, (2, 6)),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_graphs_that_exporters_write(name: str, tmp_path: Path) -> None:
    made, sizes = SPECIAL[name]
    pb = fxpullback.compile(saved(made(), tmp_path / "m.onnx"), torch.randn(2, *sizes))
    assert pb.verify().passed


def test_quantised_weights_and_activations_are_in_the_ledger(tmp_path: Path) -> None:
    pb = fxpullback.compile(saved(_quantised(), tmp_path / "m.onnx"), torch.randn(2, 6))
    assert any("1 constants of the file are stored quantised" in note for note in pb.ledger.notes)


def test_operators_that_are_not_imported_are_named_at_once(tmp_path: Path) -> None:
    made = model(
        [
            node("Strange", ["x"], ["a"], "/one", domain="my.own"),
            node("Stranger", ["a"], ["b"], "/two", domain="my.own"),
            node("Strange", ["b"], ["logits"], "/three", domain="my.own"),
        ],
        ["n", 6], domains=["my.own"],
    )  # fmt: skip
    with pytest.raises(CaptureError, match=r"my\.own\.Strange \(2, first at '/one'\); my\.own\.Stranger \(1"):
        fxpullback.compile(saved(made, tmp_path / "m.onnx"), torch.randn(2, 6))


def test_random_operators_are_refused(tmp_path: Path) -> None:
    made = model([node("RandomNormalLike", ["x"], ["r"]), node("Add", ["x", "r"], ["logits"])], ["n", 6])
    with pytest.raises(CaptureError, match="draws random numbers"):
        fxpullback.compile(saved(made, tmp_path / "m.onnx"), torch.randn(2, 6))


def _damaged(change: Callable[[onnx.ModelProto], None]) -> onnx.ModelProto:
    made = perceptron()
    change(made)
    return made


def _external(made: onnx.ModelProto, location: str, count: int = 192) -> None:
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value=str(count))


def _swap(made: onnx.ModelProto) -> None:
    nodes = [made.graph.node[i] for i in (1, 0, 2)]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del made.graph.node[:]
    made.graph.node.extend(copies)


DAMAGED: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "outside": (lambda m: _external(m, "../../etc/passwd"), "names data outside its folder"),
    "absolute": (lambda m: _external(m, "/etc/passwd"), "names data outside its folder"),
    "missing data": (lambda m: _external(m, "weights.bin"), "is missing"),
    "ten gigabytes": (lambda m: m.graph.initializer[0].dims.__setitem__(0, 1 << 30), "declares"),
    "negative": (lambda m: m.graph.initializer[0].dims.__setitem__(0, -6), "has the shape"),
    "no weight": (lambda m: m.graph.initializer.__delitem__(0), "damaged"),
    "order": (_swap, "damaged"),
    "old": (lambda m: setattr(m.opset_import[0], "version", 3), "is of opset 3"),
    "new": (lambda m: setattr(m.opset_import[0], "version", 999), "is of opset 999"),
    "no nodes": (lambda m: m.graph.node.__delitem__(slice(None)), "holds no nodes"),
    "no input": (lambda m: m.graph.input.__delitem__(0), "damaged"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_an_error_that_says_what(name: str, tmp_path: Path) -> None:
    change, said = DAMAGED[name]
    (tmp_path / "m.onnx").write_bytes(_damaged(change).SerializeToString())
    with pytest.raises(CaptureError, match=said):
        fxpullback.compile(tmp_path / "m.onnx", torch.randn(2, 6))


def test_a_link_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "secret.bin"
    inside.mkdir()
    outside.write_bytes(bytes(192))
    (inside / "weights.bin").symlink_to(outside)
    (inside / "m.onnx").write_bytes(_damaged(lambda m: _external(m, "weights.bin")).SerializeToString())
    with pytest.raises(CaptureError, match="names data outside its folder"):
        fxpullback.compile(inside / "m.onnx", torch.randn(2, 6))


def test_what_is_no_onnx_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no file"):
        fxpullback.compile(tmp_path / "none.onnx", torch.randn(2, 6))
    for content in (b"", b"not a model", bytes(range(256)) * 4):
        (tmp_path / "m.onnx").write_bytes(content)
        with pytest.raises(CaptureError, match=r"m\.onnx"):
            fxpullback.compile(tmp_path / "m.onnx", torch.randn(2, 6))


def test_data_beside_the_file_is_read(tmp_path: Path) -> None:
    onnx.save(perceptron(), tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    plain = saved(perceptron(), tmp_path / "plain.onnx")
    x = torch.randn(3, 6)
    found, wanted = (fxpullback.compile(p, x)(x, TARGET)[1] for p in (tmp_path / "m.onnx", plain))
    assert torch.equal(found, wanted)
