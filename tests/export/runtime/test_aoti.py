"""Packages of AOTInductor: certified, run by the same session, refused for the same reasons."""

from __future__ import annotations

import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._inductor import cpp_builder
from typer.testing import CliRunner

import fxpullback
from fxpullback import Ascent, Pullback
from fxpullback.contract.errors import ExportError, InputError, ModelSourceError, SessionError, VerifyError
from fxpullback.export import Session, to_aoti, to_onnx
from fxpullback.export.certify.recheck import recheck
from fxpullback.export.cli import compile as cli_compile
from fxpullback.export.cli.app import app
from fxpullback.export.runtime import aoti
from fxpullback.export.runtime.package import read
from fxpullback.export.zoo.models import load_model

CLASSES = ["ant", "bee", "crane", "dove", "eel"]


def _compiler_missing() -> str:
    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:
        return f"AOTInductor needs a C++ compiler: {error}"
    return ""


MISSING = _compiler_missing()
needs_compiler = pytest.mark.skipif(bool(MISSING), reason=MISSING)


class Masked(nn.Module):
    """A picture of any height and width, and one number for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3), nn.Linear(6, 5)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        x = torch.tanh(self.second(torch.relu(self.first(x))))
        return self.head(x.mean((2, 3)) * weight)  # type: ignore[no-any-return]


def network() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Conv2d(8, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(32, 5)).eval()


@pytest.fixture(scope="module")
def pb() -> Pullback:
    return fxpullback.compile(network(), (torch.randn(1, 3, 16, 16),))


@pytest.fixture(scope="module")
def package(pb: Pullback, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pb(pb.example, torch.tensor([0]))  # a graph that has run once has another forward
    return to_aoti(pb, tmp_path_factory.mktemp("package") / "model.pt2", classes=CLASSES)


@needs_compiler
def test_a_session_runs_it_like_an_onnx_file(pb: Pullback, package: Path, tmp_path: Path) -> None:
    onnx, code = Session(to_onnx(pb, tmp_path / "model.onnx", classes=CLASSES)), Session(package)
    x = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)
    for batch in (1, 2, 4):
        one, other = onnx(x[:batch], [3, 0, 1, 4][:batch]), code(x[:batch], [3, 0, 1, 4][:batch])
        np.testing.assert_allclose(other.logits, one.logits, atol=1e-6)
        np.testing.assert_allclose(other.pullback, one.pullback, atol=1e-6)
    for name in ("program", "rules", "target", "classes", "ledger", "inputs", "input_shape", "class_count", "sizes"):
        assert getattr(code, name) == getattr(onnx, name), name
    assert (code.runtime, onnx.runtime) == ("AOTInductor", "ONNX Runtime")
    assert code.providers == ("cpu",)


@needs_compiler
def test_it_is_certified(package: Path) -> None:
    certificate = Session(package).certificate
    assert certificate is not None
    assert certificate["passed"]
    names = {check["name"] for check in certificate["checks"]}
    assert {"AOTInductor: pullback, batch 1", "AOTInductor: pullback, batch 3"} < names
    with pytest.raises(VerifyError, match=r"machine code.*certified as it was written"):
        recheck(package)


@needs_compiler
def test_the_same_is_refused(package: Path) -> None:
    session = Session(package)
    x = np.zeros((2, 3, 16, 16), np.float32)
    for given, target, words in (
        (x[0], [0, 1], r"add the batch axis"),
        (x.astype(np.uint8), [0, 1], "uint8"),
        (x * np.nan, [0, 1], "NaN or infinite"),
        (x, [0, 5], "no class 5"),
        (x, None, "needs one"),
    ):
        with pytest.raises(InputError, match=words):
            session(given, target)
    with pytest.raises(SessionError, match="a package runs where it was compiled for, which is cpu"):
        Session(package, cuda_graph=True)
    with pytest.raises(SessionError, match="a package runs where it was compiled for"):
        Session(package, providers=["cuda"])


@needs_compiler
def test_awkward_arrays_and_results_of_ones_own(package: Path) -> None:
    session = Session(package, providers=["cpu"])
    x = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
    wanted = session(x, [1, 2])
    frozen = x.copy()
    frozen.flags.writeable = False
    for same in (frozen, np.asfortranarray(x), x[:, ::-1][:, ::-1], x.astype(np.float64)):
        np.testing.assert_array_equal(session(same, [1, 2]).pullback, wanted.pullback)
    kept = wanted.pullback.copy()
    session(-x, [0, 0])
    np.testing.assert_array_equal(wanted.pullback, kept)


@needs_compiler
def test_threads_share_it(package: Path) -> None:
    session = Session(package)
    generator = np.random.default_rng(0)
    calls = [
        (generator.normal(size=(1 + i % 3, 3, 16, 16)).astype(np.float32), [i % 5] * (1 + i % 3)) for i in range(40)
    ]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda call: session(*call), calls))
    for call, result in zip(calls, found, strict=True):
        np.testing.assert_allclose(result.pullback, session(*call).pullback, rtol=0, atol=1e-6)


@needs_compiler
def test_no_sources_and_no_way_around_our_metadata(package: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".cpp")]
    assert read(package)["fxpullback.target"] == "index"
    cut = tmp_path / "cut.pt2"
    cut.write_bytes(package.read_bytes()[:5000])
    with pytest.raises(SessionError, match="no whole package"):
        Session(cut)
    renamed = shutil.copy(package, tmp_path / "renamed.bin")
    assert Session(renamed).class_count == 5
    with pytest.raises(ModelSourceError, match="fxpullback compiled it already"):
        load_model(str(package))


@needs_compiler
def test_extras_free_sizes_and_ascent(tmp_path: Path) -> None:
    torch.manual_seed(0)
    examples = (torch.randn(2, 3, 12, 14), torch.rand(2, 1))
    program = Ascent(steps=2, alpha=1.0)
    pb = fxpullback.compile(Masked().eval(), examples, program=program, target="contrast", free_size=True)
    session = Session(to_aoti(pb, tmp_path / "masked.pt2"))
    generator = np.random.default_rng(0)
    for batch, height, width in ((1, 12, 14), (3, 9, 20)):
        x = generator.uniform(-1, 1, (batch, 3, height, width)).astype(np.float32)
        weight = generator.uniform(size=(batch, 1)).astype(np.float32)
        target = np.array([[0, 4]] * batch)
        result = session(x, target, weight=weight)
        wanted = pb(torch.from_numpy(x), torch.from_numpy(target), torch.from_numpy(weight))
        for name, value in zip(pb.output_names, wanted, strict=True):
            np.testing.assert_allclose(getattr(result, name), value.numpy(), atol=1e-5)
    with pytest.raises(InputError, match="weight is missing"):
        session(x, target)


def test_without_a_compiler(pb: Pullback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", absent)
    with pytest.raises(ExportError, match=r"needs a compiler.*install g\+\+.*CXX.*No working"):
        to_aoti(pb, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written(pb: Pullback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportError, match=r"ends in \.pt2"):
        to_aoti(pb, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="2 class names for a model of 5"):
        to_aoti(pb, tmp_path / "model.pt2", classes=["a", "b"])
    monkeypatch.setattr(aoti, "_demand_compiler", lambda: None)

    def failing(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", failing)
    with pytest.raises(ExportError, match=r"cannot compile this graph: no such kernel to_onnx"):
        to_aoti(pb, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_an_exported_program_is_no_package(tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(network(), (torch.randn(2, 3, 16, 16),)), path)
    with pytest.raises(SessionError, match=r"not compiled by fxpullback.*fxpullback compile program\.pt2 -o FILE"):
        Session(path)


@needs_compiler
def test_the_command_line(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`compile` writes a package by its suffix; `inspect` and `verify` say what it is."""
    program, free = tmp_path / "program.pt2", ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(network(), (torch.randn(2, 3, 16, 16),), dynamic_shapes=free), program)
    monkeypatch.setattr(cli_compile, "to_aoti", lambda pb, path, **_: shutil.copy(package, path))
    runner = CliRunner()
    done = runner.invoke(app, ["compile", str(program), "-o", str(tmp_path / "model.pt2")])
    assert done.exit_code == 0, done.output
    assert "certificate passed with" in done.stdout
    shown = runner.invoke(app, ["inspect", str(tmp_path / "model.pt2")]).stdout
    assert "by AOTInductor, for cpu" in shown
    assert "AOTInductor: pullback, batch 3" in shown
    checked = runner.invoke(app, ["verify", str(tmp_path / "model.pt2")])
    assert checked.exit_code == 1
    assert "machine code" in checked.stderr
    itself = runner.invoke(app, ["compile", str(program), "-o", str(program)])
    assert itself.exit_code == 1
    assert "this is the model itself" in itself.stderr
