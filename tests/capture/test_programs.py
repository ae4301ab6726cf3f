"""Exported programs of all kinds: multiples of a symbol, free sizes, a fixed batch, scripts, damaged files."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export, save

import fxpullback
from fxpullback import EXACT
from fxpullback.contract.errors import CaptureError, ModelSourceError
from fxpullback.export import Session, to_onnx
from fxpullback.export.zoo.models import load_model
from tests.helpers import assert_near, draw, pulled_back


def model() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return nn.Sequential(*layers).double().eval()


class Named(nn.Module):
    """Returns a mapping, takes a second input by name."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = model()

    def forward(self, pixels: Tensor, weight: Tensor) -> dict[str, Tensor]:
        return {"aux": pixels.mean((2, 3)), "logits": self.inner(pixels) * weight}


X = draw(16, 3, 16, 16)
HEIGHT, WIDTH = 4 * Dim("h", min=2, max=10), Dim("w", min=9, max=50)
WITHIN = "width: any size from 9 to 50"
SHAPES: dict[str, tuple[dict[int, Any], list[str]]] = {
    "a multiple": ({0: 8 * Dim("k", min=1, max=8)}, []),
    "free": ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}, ["height: any size from 4", "width: any size from 4"]),
    "within": ({0: Dim("b"), 2: HEIGHT, 3: WIDTH}, ["height: multiples of 4 from 8 to 40", WITHIN]),
    "both": ({0: 2 * Dim("k"), 3: WIDTH}, [WITHIN]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_programs_with_free_sizes(name: str, tmp_path: Path) -> None:
    shapes, free = SHAPES[name]
    net = model()
    program = export(net, (X,), dynamic_shapes=(shapes,))
    save(program, tmp_path / "model.pt2")
    for given in (program, tmp_path / "model.pt2"):
        pb = fxpullback.compile(given, X, rules=EXACT, target="cotangent")
        assert [str(axis) for axis in pb.free] == free
        size = (20 if 2 in shapes else 16, 11 if 3 in shapes else 16)
        x, ct = draw(3, 3, *size, seed=2), draw(3, 2, seed=3)
        logits, pullback = pb(x, ct)
        assert_near(logits, net(x).detach(), 1e-12)
        assert_near(pullback, pulled_back(net, x, ct), 1e-12)
        assert [row.module for row in pb.ledger.rows] == ["0", "1", "2", "3", "4"]
    assert pb.verify().passed


def test_a_file_of_free_sizes(tmp_path: Path) -> None:
    net = model().float()
    program = export(net, (X.float(),), dynamic_shapes=(SHAPES["free"][0],))
    to_onnx(fxpullback.compile(program, X.float()), tmp_path / "free.onnx")
    x = draw(3, 3, 11, 22, dtype=torch.float32)
    result = Session(tmp_path / "free.onnx")(x.numpy(), torch.tensor([0, 1, 0]).numpy())
    assert_near(torch.from_numpy(result.logits), net(x).detach(), 1e-5)


def test_inputs_by_name_and_outputs_by_name() -> None:
    net, batch = Named().eval(), 8 * Dim("k")
    weight = draw(16, 2, seed=5)
    program = export(net, (X, weight), dynamic_shapes=({0: batch}, {0: batch}))
    pb = fxpullback.compile(program, {"pixels": X, "weight": weight}, output="logits", rules=EXACT, target="cotangent")
    assert [extra.name for extra in pb.passed] == ["weight"]
    x, w, ct = draw(5, 3, 16, 16, seed=2), draw(5, 2, seed=4), draw(5, 2, seed=3)
    logits, pullback = pb(x, ct, w)
    assert_near(logits, net(x, w)["logits"].detach(), 1e-12)
    assert_near(pullback, pulled_back(lambda given: net(given, w)["logits"], x, ct), 1e-12)


def test_sizes_that_depend_on_each_other_are_refused() -> None:
    side = Dim("side", min=4, max=64)
    program = export(model(), (X,), dynamic_shapes=({0: Dim("b"), 2: side, 3: side},))
    with pytest.raises(CaptureError, match=r"height depends on width. Export it with a torch.export.Dim of its own"):
        fxpullback.compile(program, X)


def fixed() -> ExportedProgram:
    return export(model(), (X[:1],))


@pytest.mark.parametrize("count", [1, 2])
def test_a_fixed_batch_is_refused_for_that_and_the_advice_works(count: int) -> None:
    with pytest.raises(
        CaptureError, match=r"batch was fixed at 1|fixes its batch: it takes \[1, 3, 16, 16\]"
    ) as raised:
        fxpullback.compile(fixed(), X[:count])
    assert 'dynamic_shapes=({0: torch.export.Dim("batch")},)), from a batch of two' in str(raised.value)
    net = model()
    program = export(net, (X[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert fxpullback.compile(program, X[:count]).verify().passed


class Grouped(nn.Module):
    """Holds for whole groups of eight samples alone."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = model()

    def forward(self, x: Tensor) -> Any:
        y = self.inner(x)
        return (y.reshape(-1, 8, 2) * 2).reshape(-1, 2)


def test_a_batch_that_must_be_a_multiple_is_refused() -> None:
    program = export(Grouped().eval(), (X,), dynamic_shapes=({0: 8 * Dim("k")},))
    with pytest.raises(CaptureError, match=r"cannot capture ExportedProgram: on a batch of two it raises RuntimeError"):
        fxpullback.compile(program, X)


def _script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model()).save(path)


@pytest.mark.parametrize("name", ["script.pt2", "script.pt"])
def test_scripts_are_named_on_the_command_line_too(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    _script(tmp_path / name)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ModelSourceError, match=r"compiled by torch.jit.*nn.Module it"),
    ):
        load_model(str(tmp_path / name))
    assert not caplog.records
    assert capsys.readouterr().err == ""


def test_a_damaged_file_is_no_matter_of_many_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "damaged.pt2"
    path.write_text("nothing")
    with pytest.raises(ModelSourceError, match=r"not a whole .pt2 file"):
        load_model(str(path))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_free_size_is_asked_for_or_that_of_the_example(tmp_path: Path) -> None:
    save(export(model().float(), (X.float(),), dynamic_shapes=(SHAPES["free"][0],)), tmp_path / "free.pt2")
    assert load_model(str(tmp_path / "free.pt2")).example.shape[1:] == (3, 16, 16)
    assert load_model(str(tmp_path / "free.pt2"), size=(24, 40)).example.shape[1:] == (3, 24, 40)
    save(export(model().float(), (X.float(),), dynamic_shapes=({0: Dim("b")},)), tmp_path / "fixed.pt2")
    with pytest.raises(ModelSourceError, match=r"takes \[3, 16, 16\] per sample"):
        load_model(str(tmp_path / "fixed.pt2"), size=(24, 40))
