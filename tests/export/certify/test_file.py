"""The certificate of a file: what passes, and everything that must not."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

import fxpullback
from fxpullback import Ascent, Double, Pullback, Soft
from fxpullback.contract import metadata as md
from fxpullback.contract.errors import VerifyError
from fxpullback.export import Session, to_onnx
from fxpullback.export.certify.file import certify, demand
from fxpullback.export.certify.recheck import recheck
from fxpullback.export.onnx.write import write
from fxpullback.graph.ir import outputs
from tests.helpers import assert_near, variant


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 8, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip


@cache
def compiled() -> Pullback:
    return fxpullback.compile(network(), (torch.randn(1, 3, 16, 16),))


@pytest.mark.parametrize("target", ["index", "top1", "cotangent", "contrast"])
@pytest.mark.parametrize("program", [Soft(), Double(alpha=1.0), Ascent(steps=2, alpha=1.0, eps=1.5)])
def test_file_is_certified_and_checked_again(tmp_path: Path, program: Any, target: str) -> None:
    path = to_onnx(variant(compiled(), program=program, target=target), tmp_path / "model.onnx")
    stored = Session(path).certificate
    assert stored is not None
    assert stored["passed"]
    names = [check["name"] for check in stored["checks"]]
    assert any("ONNX Runtime: pullback, batch 1" in name for name in names)
    assert any("autograd" in name for name in names)
    again = recheck(path, seed=7)
    assert again.passed, str(again)


def test_changed_weights_are_noticed(tmp_path: Path) -> None:
    path = to_onnx(compiled(), tmp_path / "model.onnx", certify=False)
    model = onnx.load(path)
    weight = next(t for t in model.graph.initializer if t.dims == [5, 32])
    data = np.frombuffer(weight.raw_data, np.float32).copy()
    data[3] += 0.5
    weight.raw_data = data.tobytes()
    onnx.save(model, path)
    again = recheck(path)
    assert [c.name for c in again.checks if not c.passed] == ["file: sha256 of the weights"]


def test_a_wrong_adjoint_is_noticed(tmp_path: Path) -> None:
    """A file whose pullback is the plain gradient has the right logits all along."""
    soft, plain = compiled(), variant(compiled(), rules=fxpullback.EXACT)
    logits = [pb.graph(torch.ones(2, 3, 16, 16), torch.tensor([0, 1]))[0].detach() for pb in (soft, plain)]
    assert_near(logits[0], logits[1], 1e-6)
    path = to_onnx(plain, tmp_path / "model.onnx", certify=False)
    certificate = certify(soft, path)
    failed = [c.name for c in certificate.checks if not c.passed]
    assert failed == ["ONNX Runtime: pullback, batch 1", "ONNX Runtime: pullback, batch 3"]
    with pytest.raises(VerifyError, match=r"did not pass.*\n.*pullback, batch 1"):
        demand(certificate, path)


def test_a_constant_is_noticed(tmp_path: Path) -> None:
    """A pullback burnt in for the example passes no check on other inputs."""
    pb = compiled()
    graph = copy.deepcopy(pb.graph)
    node = graph.graph.output_node()
    logits, pullback = outputs(graph.graph)
    shape = pullback.meta["val"]
    with graph.graph.inserting_before(node):
        graph.register_buffer("frozen", torch.randn(1, 3, 16, 16))
        frozen = graph.graph.get_attr("frozen")
        frozen.meta["val"] = shape.fake_mode.from_tensor(graph.frozen)
        zero = graph.graph.call_function(torch.ops.aten.mul.Tensor, (pullback, 0.0))
        constant = graph.graph.call_function(torch.ops.aten.add.Tensor, (zero, frozen))
        zero.meta["val"] = constant.meta["val"] = shape
    node.args = ((logits, constant),)
    graph.recompile()
    texts = {md.VERSION: "0", md.RULES: "{}", md.PROGRAM: json.dumps({"name": "soft"}), md.TARGET: "index"}
    texts |= {md.LEDGER: pb.ledger.to_json(), md.INPUTS: '{"explained": "input", "extras": []}', md.REWRITES: "{}"}
    path = write(graph, tmp_path / "model.onnx", lambda: texts)
    assert not certify(pb, path).passed


def test_metadata_survives_offline_optimisation(tmp_path: Path) -> None:
    path, optimised = to_onnx(compiled(), tmp_path / "model.onnx"), tmp_path / "optimised.onnx"
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(optimised)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    before, after = Session(path), Session(optimised)
    assert after.metadata.raw == before.metadata.raw
    assert after.ledger == before.ledger
    x = np.random.default_rng(0).uniform(-1, 1, (4, 3, 16, 16)).astype(np.float32)
    assert np.allclose(after(x, [0, 1, 2, 3]).pullback, before(x, [0, 1, 2, 3]).pullback, atol=1e-6)


def test_file_without_injected_form_says_so(tmp_path: Path) -> None:
    pb = compiled()
    path = to_onnx(pb, tmp_path / "model.onnx", certify=False)
    model = onnx.load(path)
    kept = [p for p in model.metadata_props if p.key != md.ORACLE]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, path)
    with pytest.raises(VerifyError, match="does not carry the injected form"):
        recheck(path)
