"""Pullbacks beside a file's own nodes: what was there stays to the last bit, and the explanation is that of compile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import fxpullback
from fxpullback.contract import metadata as md
from fxpullback.errors import CaptureError, ExportError, SessionError, VerifyError
from fxpullback.export import Session, to_onnx
from fxpullback.export.certify.recheck import recheck
from fxpullback.export.insert import insert, write_beside
from fxpullback.export.insert.same import LEVELS
from tests.export.insert.networks import Two, net, words, written

X = np.random.default_rng(0).standard_normal((3, 3, 16, 16)).astype(np.float32)


def ran(path: Path, level: str, outputs: list[str], feed: dict[str, Any]) -> list[Any]:
    """What ONNX Runtime makes of a file at a level of optimisation."""
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    found: list[Any] = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(outputs, feed)
    return found


def assert_kept(before: Path, after: Path) -> None:
    """Nodes, initialisers, inputs and outputs of a file are in another one, byte for byte and first."""
    old, new = onnx.load(before).graph, onnx.load(after).graph
    for name in ("node", "initializer", "input", "output"):
        mine, theirs = getattr(old, name), getattr(new, name)
        assert [a.SerializeToString() for a in mine] == [a.SerializeToString() for a in theirs[: len(mine)]], name


def assert_like_compiled(path: Path, inserted: Path, **options: Any) -> None:
    """The same explanation as of a file of its own."""
    file = to_onnx(fxpullback.compile(path, **options), inserted.with_name("own.onnx"), certify=False)
    own, found = Session(file), Session(inserted)
    target = np.array([0, 3, 4])
    wanted, got = own(X, target), found(X, target)
    for name in ("logits", "pullback"):
        scale = np.abs(wanted[name]).max()
        assert np.abs(got[name] - wanted[name]).max() <= 1e-5 * scale, name


@pytest.mark.parametrize("how", [{"opset": 11}, {"opset": 13}, {"opset": 17}, {"opset": 20}, {"norms": True}])
def test_all_that_was_there_stays_to_the_last_bit(tmp_path: Path, how: dict[str, Any]) -> None:
    path = net(tmp_path / "net.onnx", **how)
    found = insert(path, tmp_path / "out.onnx")
    assert_kept(path, found)
    assert onnx.load(found).opset_import == onnx.load(path).opset_import
    for level in LEVELS:
        (before,) = ran(path, level, ["scores"], {"image": X})
        (after,) = ran(found, level, ["scores"], {"image": X, "target": np.array([1, 2, 3])})
        assert before.tobytes() == after.tobytes(), level
    assert_like_compiled(path, found)


def test_weights_are_held_once(tmp_path: Path) -> None:
    path = net(tmp_path / "net.onnx", norms=True)
    before, after = onnx.load(path).graph, onnx.load(insert(path, tmp_path / "out.onnx")).graph
    new = [numpy_helper.to_array(tensor) for tensor in after.initializer[len(before.initializer) :]]
    weights = [array for array in new if array.size > 64 and len(np.unique(array)) > 2]
    assert not weights, [array.shape for array in weights]


def test_values_are_read_where_they_are(tmp_path: Path) -> None:
    """The forward is not computed a second time: no more convolutions and products than of the adjoint."""
    path = net(tmp_path / "net.onnx")
    after = onnx.load(insert(path, tmp_path / "out.onnx")).graph
    added = after.node[len(onnx.load(path).graph.node) :]
    made = {name for node in added for name in node.output}
    forward = [node for node in added if node.op_type in ("Conv", "Gemm", "MatMul") and not reaches(node, added, made)]
    assert not forward, [node.name for node in forward]


def reaches(node: onnx.NodeProto, added: Any, made: set[str]) -> bool:
    """Whether a node depends on the target, or on a weight alone."""
    makers = {name: other for other in added for name in other.output}
    waiting, seen = list(node.input), set[str]()
    while waiting:
        name = waiting.pop()
        if name == "target":
            return True
        if name in makers and name not in seen:
            waiting += makers[name].input
        seen.add(name)
    return False


@pytest.mark.parametrize(
    "options",
    [
        {"program": fxpullback.Double(alpha=0.1)},
        {"program": fxpullback.Ascent(steps=2, alpha=0.1, clip=None)},
        {"target": "top1"},
        {"target": "cotangent"},
        {"target": "contrast", "rules": fxpullback.EXACT},
        {"taps": "auto", "bias": "share"},
    ],
    ids=["double", "ascent", "top1", "cotangent", "contrast", "taps"],
)
def test_everything_that_compile_takes(tmp_path: Path, options: dict[str, Any]) -> None:
    found = insert(net(tmp_path / "net.onnx"), tmp_path / "out.onnx", **options)
    assert_kept(tmp_path / "net.onnx", found)
    assert recheck(found).passed


def test_a_fixed_batch_stays_fixed(tmp_path: Path) -> None:
    path = net(tmp_path / "net.onnx", fixed=True)
    session = Session(insert(path, tmp_path / "out.onnx"))
    assert session.input_shape == (1, 3, 16, 16)
    assert session(X[:1], np.array([1])).pullback.shape == (1, 3, 16, 16)
    assert recheck(tmp_path / "out.onnx").passed


@pytest.mark.parametrize("name", ["logits", "pullback", "target"])
def test_names_that_the_file_has_already(tmp_path: Path, name: str) -> None:
    path = net(tmp_path / "net.onnx", returned=name)
    found = insert(path, tmp_path / "out.onnx")
    assert_kept(path, found)
    assert_like_compiled(path, found)


def test_a_file_that_the_runtime_optimised(tmp_path: Path) -> None:
    path, options = net(tmp_path / "net.onnx"), ort.SessionOptions()
    options.graph_optimization_level = LEVELS["extended"]
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = insert(tmp_path / "optimised.onnx", tmp_path / "out.onnx")
    assert_kept(tmp_path / "optimised.onnx", found)
    assert_like_compiled(path, found)


def test_data_beside_the_file(tmp_path: Path) -> None:
    model, there, other = onnx.load(net(tmp_path / "net.onnx")), tmp_path / "there", tmp_path / "other"
    there.mkdir()
    other.mkdir()
    path = there / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=100)
    assert recheck(insert(path, there / "out.onnx")).passed
    assert recheck(insert(path, other / "out.onnx")).passed
    assert (other / "weights.bin").read_bytes() == (there / "weights.bin").read_bytes()
    (other / "weights.bin").write_bytes(b"another network")
    with pytest.raises(ExportError, match="other data is there"):
        insert(path, other / "again.onnx")
    assert (other / "weights.bin").read_bytes() == b"another network"
    assert not (other / "again.onnx").exists()


@pytest.mark.parametrize("everywhere", [False, True])
def test_ids_are_explained_at_their_embeddings(tmp_path: Path, everywhere: bool) -> None:
    path, examples = words(tmp_path / "words.onnx", everywhere)
    options: dict[str, Any] = {"positions": "index"} if everywhere else {}
    found = insert(path, tmp_path / "out.onnx", examples, at="embeddings", **options)
    assert_kept(path, found)
    assert recheck(found).passed


def test_several_inputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = torch.randn(2, 5), torch.randn(2, 3)
    path = written(Two(), given, tmp_path / "two.onnx", names=("u", "v"))
    second = Session(insert(path, tmp_path / "second.onnx", first="v"))
    assert second.metadata.beside is not None
    assert second.metadata.beside.inputs == {"input": "v", "u": "u", "target": "target"}
    both = insert(path, tmp_path / "both.onnx", dict(zip("uv", given, strict=True)), explain=("u", "v"))
    assert Session(both).outputs == ("logits", "pullback.u", "pullback.v")
    assert recheck(both).passed


def test_a_value_inside_is_explained(tmp_path: Path) -> None:
    path = net(tmp_path / "net.onnx")
    inside = onnx.load(path).graph.node[-1].input[0]
    session = Session(insert(path, tmp_path / "out.onnx", logits=inside))
    assert session.class_count == 16


class Flat(nn.Module):
    """A head of convolutions, whose logits are `[batch, classes, 1, 1]`; or one logit a sample, `[batch]`."""

    def __init__(self, one: bool) -> None:
        super().__init__()
        self.body, self.head, self.one = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 1), one

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(torch.relu(self.body(x)).mean((2, 3), keepdim=True))
        return x.flatten(1)[:, 0] if self.one else x


@pytest.mark.parametrize("one", [False, True])
def test_logits_of_another_rank(tmp_path: Path, one: bool) -> None:
    torch.manual_seed(0)
    path = written(Flat(one), (torch.randn(2, 3, 8, 8),), tmp_path / "flat.onnx")
    found = insert(path, tmp_path / "out.onnx")
    assert_kept(path, found)
    assert Session(found)(X[:, :, :8, :8], np.array([0, 0, 0])).logits.shape == (3, 1 if one else 5)
    assert recheck(found).passed


def test_a_node_that_was_changed_since_is_found(tmp_path: Path) -> None:
    found = insert(net(tmp_path / "net.onnx"), tmp_path / "out.onnx")
    model = onnx.load(found)
    next(node for node in model.graph.node if node.op_type == "Relu").doc_string = "changed"
    onnx.save(model, found)
    failed = [check.name for check in recheck(found).checks if not check.passed]
    assert failed == ["file: nodes of the original file"]


def test_a_pullback_that_reads_the_wrong_value_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fxpullback.export.insert import shared

    held = shared._Cut._held

    def swapped(self: Any, node: Any) -> Any:
        found = held(self, node)
        return found if found is None or "Relu" not in found[0] else (found[0], 2 * found[1])

    monkeypatch.setattr(shared._Cut, "_held", swapped)
    with pytest.raises(VerifyError, match="pullback"):
        insert(net(tmp_path / "net.onnx"), tmp_path / "out.onnx", rules=fxpullback.REFERENCE)
    assert {file.name for file in tmp_path.iterdir()} == {"net.onnx"}


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    path = net(tmp_path / "net.onnx")
    with pytest.raises(ExportError, match="the file itself"):
        insert(path, path)
    with pytest.raises(ExportError, match="not compiled beside a file"):
        write_beside(fxpullback.compile(path), tmp_path / "out.onnx")
    with pytest.raises(ExportError, match="opset 10"):
        insert(net(tmp_path / "old.onnx", opset=10), tmp_path / "out.onnx")
    with pytest.raises(CaptureError, match="no file"):
        insert(tmp_path / "none.onnx", tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_metadata_that_is_incomplete_is_damage(tmp_path: Path) -> None:
    found = insert(net(tmp_path / "net.onnx"), tmp_path / "out.onnx", certify=False)
    model = onnx.load(found)
    (entry,) = (entry for entry in model.metadata_props if entry.key == md.BESIDE)
    entry.value = json.dumps({"file": "net.onnx"})
    onnx.save(model, found)
    with pytest.raises(SessionError, match="incomplete"):
        Session(found)
