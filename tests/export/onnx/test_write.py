"""Files written by `to_onnx`: contract, metadata, external weights, and nothing half written."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

import fxpullback
from fxpullback.contract import metadata as md
from fxpullback.contract.errors import ExportError
from fxpullback.export.onnx.write import to_onnx, write


class Net(nn.Module):
    """A convolution, a gate, a pool, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.conv(x).relu()).flatten(1))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def pb() -> fxpullback.Pullback:
    return fxpullback.compile(Net().eval(), (torch.randn(2, 3, 8, 8),))


def outputs(path: Path, batch: int = 3) -> tuple[list[np.ndarray[Any, Any]], tuple[torch.Tensor, torch.Tensor]]:
    x, target = torch.randn(batch, 3, 8, 8), torch.arange(batch)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"input": x.numpy(), "target": target.numpy()})), (x, target)


def test_file_keeps_the_contract(pb: fxpullback.Pullback, tmp_path: Path) -> None:
    path = to_onnx(pb, tmp_path / "net.onnx", classes=list("abcde"), preprocessing={"size": 8})
    results, given = outputs(path)
    for result, expected in zip(results, pb(*given), strict=True):
        np.testing.assert_allclose(result, expected.numpy(), rtol=1e-5, atol=1e-6)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["input", "target"]
    assert [value.name for value in model.graph.output] == ["logits", "pullback"]
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert model.ir_version <= 10
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


def test_file_says_what_it_is(pb: fxpullback.Pullback, tmp_path: Path) -> None:
    path = to_onnx(pb, tmp_path / "net.onnx", classes=list("abcde"), preprocessing={"size": 8})
    raw = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    meta = md.parse(raw)
    assert meta.program_name == "soft"
    assert meta.target == "index"
    assert meta.classes == list("abcde")
    assert meta.preprocessing == {"size": 8}
    assert meta.ledger == json.loads(pb.ledger.to_json())
    assert meta.rules == json.loads(json.dumps(pb.rules.describe()))
    assert json.loads(raw["fxpullback.output_names"]) == ["logits", "pullback"]
    assert len(meta.weights_sha256 or "") == 64


def test_digest_is_of_the_weights_alone(pb: fxpullback.Pullback, tmp_path: Path) -> None:
    def digest(compiled: fxpullback.Pullback) -> str:
        path = to_onnx(compiled, tmp_path / "net.onnx", certify=False)
        return next(str(entry.value) for entry in onnx.load(path).metadata_props if entry.key == md.WEIGHTS_SHA256)

    before = digest(pb)
    assert digest(pb) == before
    other = Net().eval()
    with torch.no_grad():
        other.conv.weight[0, 0, 0, 0] += 1
    assert digest(fxpullback.compile(other, (torch.randn(2, 3, 8, 8),))) != before


def test_many_weights_go_beside_the_file(pb: fxpullback.Pullback, tmp_path: Path) -> None:
    first, moved = tmp_path / "first", tmp_path / "moved"
    first.mkdir()
    path = to_onnx(pb, first / "net.onnx", external_above=100)
    assert sorted(entry.name for entry in first.iterdir()) == ["net.onnx", "net.onnx.data"]
    assert (first / "net.onnx.data").stat().st_size > 100
    first.rename(moved)
    results, given = outputs(moved / path.name)
    for result, expected in zip(results, pb(*given), strict=True):
        np.testing.assert_allclose(result, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_no_folder_is_said_before_any_work(tmp_path: Path) -> None:
    def never() -> dict[str, str]:
        raise AssertionError("work was begun")

    graph = torch.fx.symbolic_trace(nn.Identity())
    with pytest.raises(ExportError, match="there is no folder"):
        write(graph, tmp_path / "absent" / "net.onnx", never)
    with pytest.raises(ExportError, match="is a folder"):
        write(graph, tmp_path, never)


def test_folder_that_refuses(pb: fxpullback.Pullback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(ExportError, match=r"net\.onnx cannot be written: Permission denied"):
        to_onnx(pb, tmp_path / "net.onnx")


def test_failed_export_leaves_the_old_file(pb: fxpullback.Pullback, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")

    def failing(file: Path) -> None:
        assert file.stat().st_size > 1000
        raise RuntimeError("it does not pass")

    with pytest.raises(RuntimeError, match="does not pass"):
        write(pb.graph, path, dict, certificate=failing)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


def test_certificate_goes_into_the_file(pb: fxpullback.Pullback, tmp_path: Path) -> None:
    seen: list[str] = []

    def certify(file: Path) -> dict[str, bool]:
        seen.append(hashlib.sha256(file.read_bytes()).hexdigest())
        return {"passed": True}

    path = write(pb.graph, tmp_path / "net.onnx", dict, certificate=certify, external_above=0)
    raw = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(raw[md.CERTIFICATE]) == {"passed": True}
    assert len(seen) == 1
    outputs(path)


def test_wrong_number_of_classes(pb: fxpullback.Pullback, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="3 class names for a model of 5 classes"):
        to_onnx(pb, tmp_path / "net.onnx", classes=list("abc"))


def test_session_loads_without_a_warning(
    pb: fxpullback.Pullback, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = to_onnx(pb, tmp_path / "net.onnx")
    capfd.readouterr()
    outputs(path)
    assert capfd.readouterr().err == ""
