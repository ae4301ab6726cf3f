"""Files in half precision: what they hold, how they are certified, and how they are refused."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import fxpullback
from fxpullback import Ascent, Pullback
from fxpullback.contract import metadata as md
from fxpullback.contract.errors import ProgramError, SessionError, VerifyError
from fxpullback.export import Session, to_onnx
from fxpullback.export.certify.half import bound_of
from fxpullback.export.certify.recheck import recheck
from fxpullback.export.cli.app import app
from fxpullback.export.runtime.described import Described, opened
from tests.half.test_autocast import Faint
from tests.helpers import draw, variant

FLOAT16, BFLOAT16 = onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(16, 64, 3, padding=1), nn.GELU(), nn.Conv2d(64, 64, 3, padding=1), nn.Tanh(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LayerNorm(256), nn.Linear(256, 64), nn.SiLU(), nn.Linear(64, 5),
    ).eval()  # fmt: skip


@cache
def compiled(ascent: bool = False) -> Pullback:
    if ascent:
        return variant(compiled(), program=Ascent(steps=2, alpha=1.0))
    return fxpullback.compile(network(), (draw(1, 3, 16, 16, dtype=torch.float32),))


@pytest.mark.parametrize("ascent", [False, True])
def test_a_float16_file(tmp_path: Path, ascent: bool) -> None:
    pb = compiled(ascent)
    wide, half = (to_onnx(pb, tmp_path / f"{p}.onnx", precision=p, certify=p == "fp16") for p in ("fp32", "fp16"))
    model = onnx.load(half)
    weights = [t for t in model.graph.initializer if t.name.startswith("p_") and len(t.dims) > 1]
    assert weights
    assert {t.data_type for t in weights} == {FLOAT16}
    sizes = [sum(len(t.raw_data) for t in onnx.load(path).graph.initializer) for path in (wide, half)]
    assert sizes[1] < 0.53 * sizes[0]

    session, reference = Session(half, providers=["cpu"]), Session(wide, providers=["cpu"])
    assert {value.dtype for value in session.inputs.values()} == {"float32", "int64"}
    assert session.metadata.precision["cotangent_scale"] >= 2
    assert session.metadata.precision_name == "fp16"
    assert sum(session.metadata.precision["float32"].values()) < session.metadata.precision["operators"]
    x, given = draw(4, 3, 16, 16, seed=3, dtype=torch.float32).numpy(), [0, 1, 2, 3]
    found, wanted = session(x, given), reference(x, given)
    assert found.pullback.dtype == np.float32
    error = np.linalg.norm(found.pullback - wanted.pullback) / np.linalg.norm(wanted.pullback)
    assert 1e-6 < error < 0.02

    stored = session.certificate
    assert stored is not None
    assert stored["passed"]
    names = [check["name"] for check in stored["checks"]]
    assert "fp16 in torch: pullback, cosine" in names
    assert "fp16 in ONNX Runtime, batch 3: pullback, cosine" in names
    assert "pullback: graph against autograd, float64" in names  # of the float32 graph
    again = recheck(half, seed=7)
    assert again.passed, str(again)


def test_changed_weights_are_noticed(tmp_path: Path) -> None:
    path = to_onnx(compiled(), tmp_path / "model.onnx", precision="fp16", certify=False)
    model = onnx.load(path)
    weight = next(t for t in model.graph.initializer if list(t.dims) == [5, 64])
    weight.raw_data = (np.frombuffer(weight.raw_data, np.float16) * np.float16(1.01)).tobytes()
    onnx.save(model, path)
    assert [c.name for c in recheck(path).checks if not c.passed] == ["file: sha256 of the weights"]


def test_a_wrong_adjoint_is_noticed(tmp_path: Path) -> None:
    """The plain gradient in float16 is farther off than any rounding."""
    plain = variant(compiled(), rules=fxpullback.EXACT)
    path = to_onnx(plain, tmp_path / "plain.onnx", precision="fp16", certify=False)
    good = to_onnx(compiled(), tmp_path / "good.onnx", precision="fp16", certify=False)
    model, other = onnx.load(path), onnx.load(good)
    carried = next(p for p in other.metadata_props if p.key == md.ORACLE).value
    next(p for p in model.metadata_props if p.key == md.ORACLE).value = carried
    onnx.save(model, path)
    failed = [c.name for c in recheck(path).checks if not c.passed]
    assert "fp16 in ONNX Runtime, batch 3: pullback, cosine" in failed
    assert not any("logits" in name for name in failed)


def test_a_bfloat16_file(tmp_path: Path) -> None:
    path = to_onnx(compiled(), tmp_path / "model.onnx", precision="bf16")
    model = onnx.load(path)
    assert BFLOAT16 in {t.data_type for t in model.graph.initializer}
    assert [item.version for item in model.opset_import] == [22]
    with pytest.raises(SessionError, match=r"computes in bfloat16, .* no kernels on the CPU\. Run it on an NVIDIA GPU"):
        Session(path, providers=["cpu"])
    described = opened(path)
    assert isinstance(described, Described)
    assert described.metadata.precision_name == "bf16"
    assert described.class_count == 5
    stored = described.certificate
    assert stored is not None
    names = [check["name"] for check in stored["checks"]]
    assert "bf16 in torch: pullback, cosine" in names
    assert not any("ONNX Runtime" in name for name in names)
    assert "certified in torch alone" in stored["environment"]["onnxruntime"]


def test_other_files_are_not_taken_for_bfloat16(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(SessionError, match="no whole ONNX file"):
        opened(broken)
    with pytest.raises(SessionError, match="there is no such file"):
        opened(tmp_path / "absent.onnx")


def test_a_scale_too_small_is_refused(tmp_path: Path) -> None:
    """What the certificate says of a float16 file whose cotangents were flushed to zero."""
    pb = fxpullback.compile(Faint().eval(), (draw(1, 3, 8, 8, dtype=torch.float32),))
    path = tmp_path / "model.onnx"
    with pytest.raises(VerifyError, match=r"(?s)fp16 in torch: pullback, cosine.*use bf16"):
        to_onnx(pb, path, precision="fp16", cotangent_scale=1.0)
    assert not path.exists()
    assert to_onnx(pb, path, precision="fp16").exists()


class Loud(nn.Module):
    """Activations of size 1e6 on the way to logits of size one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        loud = torch.relu(self.second(torch.relu(self.first(x * 1000.0)) * 1000.0))
        result: Tensor = self.head(loud * 1e-3 * 1e-3)
        return result


def test_an_overflow_is_refused_by_name(tmp_path: Path) -> None:
    pb = fxpullback.compile(Loud().eval(), (draw(2, 16, dtype=torch.float32),), rules=fxpullback.SEMANTIC)
    said = r"(?s)not finite.*aten\.linear at second.*it overflows\. Use bf16"
    with pytest.raises(VerifyError, match=said) as refused:
        to_onnx(pb, tmp_path / "model.onnx", precision="fp16")
    assert "Please report" not in str(refused.value)
    assert not (tmp_path / "model.onnx").exists()
    assert to_onnx(pb, tmp_path / "model.onnx", precision="bf16").exists()


def test_bounds() -> None:
    assert bound_of("fp16") == 0.125
    assert 0.35 < bound_of("bf16") < 0.36


def test_unknown_precision(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="there are fp32, fp16, bf16"):
        to_onnx(compiled(), tmp_path / "model.onnx", precision="half")


def test_files_without_the_key_are_float32(tmp_path: Path) -> None:
    path = to_onnx(compiled(), tmp_path / "model.onnx", certify=False)
    assert md.PRECISION not in Session(path).metadata.raw
    assert Session(path).metadata.precision == {"name": "fp32"}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_command_line(tmp_path: Path, precision: str) -> None:
    path = tmp_path / "model.onnx"
    options = ["--input-shape", "3,16,16", "--precision", precision, "-o", str(path)]
    result = CliRunner().invoke(app, ["compile", f"{__name__}:network", *options])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert f"{precision}; in float32:" in said
    assert ("certified in torch" in said) == (precision == "bf16")
    shown = CliRunner().invoke(app, ["inspect", str(path)])
    assert shown.exit_code == 0, shown.output
    assert f"{precision}; in float32:" in " ".join(shown.output.split())
    checked = CliRunner().invoke(app, ["verify", str(path)])
    assert checked.exit_code == (0 if precision == "fp16" else 1), checked.output
    if precision == "bf16":
        assert "NVIDIA GPU" in " ".join(checked.output.split())
    assert json.loads(opened(path).metadata.raw[md.PRECISION])["name"] == precision
