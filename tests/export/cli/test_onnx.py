"""`fxpullback compile model.onnx`: pictures as the file takes them, outputs and inputs by name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import fxpullback
from fxpullback.export import Session, to_onnx
from fxpullback.export.zoo.models import load_model
from tests.export.cli.commands import run
from tests.helpers import assert_near
from tests.importer.graphs import drawn, model, node, perceptron, saved


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A network of pictures, 3 x 32 x 32, with a softmax at its end."""
    nodes = [
        node("Conv", ["x", "w"], ["c"], "/conv/Conv", strides=[2, 2]),
        node("Relu", ["c"], ["r"], "/act/Relu"),
        node("GlobalAveragePool", ["r"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "v"], ["logits"], "/head/Gemm"),
        node("Softmax", ["logits"], ["shares"]),
    ]
    weights = {"w": drawn(8, 3, 3, 3, scale=0.4), "v": drawn(8, 4, seed=1)}
    return saved(model(nodes, ["n", 3, 32, 32], ["shares"], weights=weights), tmp_path / "net.onnx")


def test_a_file_becomes_a_file_with_its_explanation(pictures: Path) -> None:
    out, _ = run("compile", str(pictures), "--logits", "logits", "--mean", "0.5,0.4,0.3", "--std", "0.2,0.2,0.3")
    assert "net-explained.onnx" in out
    session = Session("net-explained.onnx")
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    loaded = load_model(str(pictures), output="logits", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3))
    wanted = fxpullback.compile(loaded.model, x, output="logits")(x, torch.tensor([1, 3]))
    result = session(x.numpy(), np.array([1, 3]))
    assert_near(torch.from_numpy(result.logits), wanted[0], 1e-5)
    assert session.certificate is not None
    assert session.certificate["checks"][0]["name"] == "original file in ONNX Runtime: logits, batch 1"
    assert [row["module"] for row in session.ledger["rows"] if row["gate"]] == ["/act/Relu"]


def test_inspect_names_the_file_it_comes_from(pictures: Path) -> None:
    """Its name, digest, what wrote it, the version of its operators; and the nodes that the ledger's rows are of."""
    made = onnx.load(pictures)
    made.producer_name, made.producer_version = "pytorch", "2.3.1"
    onnx.save(made, pictures, save_as_external_data=True, location="net.data", size_threshold=0)
    run("compile", str(pictures), "--logits", "logits", "--mean", "0,0,0", "--std", "1,1,1", "-o", "made.onnx")
    digest = hashlib.sha256(pictures.read_bytes()).hexdigest()
    session = Session("made.onnx")
    assert session.metadata.origin is not None
    assert session.metadata.origin["sha256"] == digest
    assert [*session.metadata.origin["data"]] == ["net.data"]
    out = " ".join(run("inspect", "made.onnx")[0].split())
    assert "imported from net.onnx, written by pytorch 2.3.1, opset ai.onnx 18, sha256" in out
    assert digest in out.replace(" ", "")
    assert "/act/Relu" in out


def test_a_module_is_imported_from_nothing(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))
    path = tmp_path / "plain.onnx"
    to_onnx(fxpullback.compile(model.eval(), torch.randn(2, 3, 2, 2)), path)
    assert Session(path).metadata.origin is None
    assert "imported from" not in run("inspect", str(path))[0]


def test_channels_last_are_taken_first(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        node("Conv", ["t", "w"], ["c"]),
        node("Relu", ["c"], ["r"]),
        node("ReduceMean", ["r", "axes"], ["m"], keepdims=0),
        node("MatMul", ["m", "v"], ["logits"]),
    ]
    weights = {"w": drawn(8, 3, 3, 3, scale=0.4), "v": drawn(8, 4, seed=1), "axes": np.array([2, 3])}
    path = saved(model(nodes, ["n", 16, 20, 3], weights=weights), tmp_path / "nhwc.onnx")
    _, said = run("compile", str(path), "-o", "first.onnx")
    assert "takes [batch, height, width, channels]" in said
    assert Session("first.onnx")(np.zeros((2, 3, 16, 20), np.float32), np.array([0, 1])).logits.shape == (2, 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--logits", "nothing"], "no value called 'nothing'"),
        (["--input", "y"], "no input called 'y'; it takes x"),
        (["--size", "64"], "which --size cannot change"),
        (["--pretrained"], "brings its own weights; leave --pretrained out"),
        (["-o", "net.onnx"], "this is the model itself"),
    ],
)
def test_what_a_file_does_not_have(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(pictures.parent)
    _, said = run("compile", "net.onnx", *arguments, code=1)
    assert words in " ".join(said.replace("│", " ").split())


def test_an_input_is_named_for_files_alone() -> None:
    _, said = run("compile", "timm:test_resnet", "--input", "x", code=2)
    assert "it is for .onnx files" in " ".join(said.replace("│", " ").split())


def test_an_input_that_is_the_same_each_time_is_held(tmp_path: Path) -> None:
    made = model([node("Mul", ["x", "rate"], ["h"]), node("Tanh", ["h"], ["logits"])], ["n", 4])
    made.graph.input.append(onnx.helper.make_tensor_value_info("rate", onnx.TensorProto.FLOAT, []))
    path = saved(made, tmp_path / "rate.onnx")
    _, said = run("compile", str(path), code=1)
    assert "--hold NAME=NUMBER" in " ".join(said.replace("│", " ").split())
    run("compile", str(path), "--hold", "rate=0.5", "-o", "held.onnx")
    session, x = Session("held.onnx"), drawn(2, 4)
    assert_near(torch.from_numpy(session(x, np.array([1, 3])).logits), torch.tanh(torch.from_numpy(x) / 2), 1e-5)
    _, said = run("compile", str(path), "--hold", "rate=fast", code=2)
    assert "rate=fast: a number is wanted" in " ".join(said.replace("│", " ").split())


def test_a_file_of_ids_is_explained_at_what_they_are_looked_up_as(tmp_path: Path) -> None:
    nodes = [
        node("Gather", ["table", "x"], ["rows"]),
        node("Tanh", ["rows"], ["t"]),
        node("Flatten", ["t"], ["f"]),
        node("MatMul", ["f", "head"], ["hidden"]),
        node("Identity", ["hidden"], ["logits"]),
    ]
    made = model(nodes, ["n", 5], weights={"table": drawn(7, 4), "head": drawn(20, 3, seed=1)})
    made.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.INT64, ["n", 5]))
    path = saved(made, tmp_path / "ids.onnx")
    np.savez(tmp_path / "x.npz", x=np.array([[0, 1, 2, 3, 6], [6, 5, 4, 3, 2]]))
    for given in ([], ["--logits", "hidden"], ["--example", str(tmp_path / "x.npz")]):
        run("compile", str(path), *given, "-o", "explained.onnx")
        found = Session("explained.onnx")(np.array([[0, 3, 6, 2, 1]]), np.array([2]))
        assert found.pullback.shape == (1, 5, 4)
    _, said = run("compile", str(path))
    assert "the file takes ids, 0 to 6: what they are looked up as is explained" in " ".join(said.split())


def test_inputs_are_held_for_files_alone() -> None:
    _, said = run("compile", "timm:test_resnet", "--hold", "x=1", code=2)
    assert "it is for .onnx files; of other models pass --example" in " ".join(said.replace("│", " ").split())


def test_examples_of_a_file_are_its_own(tmp_path: Path) -> None:
    path = saved(perceptron(), tmp_path / "p.onnx")
    assert fxpullback.compile(path).verify().passed
    with pytest.raises(fxpullback.FxPullbackError, match="no example inputs"):
        fxpullback.compile(nn.Linear(3, 2))
    free = onnx.load(path)
    free.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "n"
    with pytest.raises(fxpullback.FxPullbackError, match="its sizes are free"):
        fxpullback.compile(saved(free, tmp_path / "free.onnx"))
