"""Networks with real pretrained weights, in ONNX Runtime, against eager autograd through the injected form."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fxpullback
from fxpullback import Ascent, Double, Pullback, Soft
from fxpullback.certify.eager import run_eagerly
from fxpullback.export import Session, to_onnx
from fxpullback.graph.inputs import Inputs
from tests.helpers import variant

NAMES = ("vit_tiny", "mobilenetv2", "mobilenetv3_small", "squeezenet1_0", "cifar_resnet20")
PROGRAMS: dict[str, Soft | Double | Ascent] = {"soft": Soft(), "double": Double(), "ascent": Ascent(steps=3)}
BATCHES = (1, 3, 8)


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def smallest_cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1)).min())


@functools.cache
def compiled(zoo: Any, name: str) -> Pullback:
    example = (zoo.images(name)[0][:1],)
    return fxpullback.compile(zoo.load(name).model, example, rules=fxpullback.SEMANTIC, taps="auto")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", NAMES)
def test_one_file_serves_every_batch(zoo: Any, tmp_path: Path, name: str, program: str) -> None:
    entry = zoo.load(name)
    pictures, labels, _ = zoo.images(name)
    pictures, labels = pictures[10:18], labels[10:18]
    pb = variant(compiled(zoo, name), program=PROGRAMS[program])
    session = Session(to_onnx(pb, tmp_path / f"{name}.onnx", certify=False))
    wanted = run_eagerly(pb.rewritten, pb.program, "index", Inputs(pictures), labels, pb.taps.held_in(pb.rewritten))
    assert torch.equal(pb.rewritten(pictures)[0], entry.model(pictures))
    for batch in BATCHES:
        found = session(pictures[:batch].numpy(), labels[:batch].numpy())
        assert relative(torch.from_numpy(found.logits), wanted["logits"][:batch]) < 1e-4
        pullback, expected = torch.from_numpy(found.pullback), wanted["pullback"][:batch]
        assert found.contribution is not None
        if program != "double":  # of ascent it is that of the picture itself
            assert relative(torch.from_numpy(found.contribution), wanted["contribution"][:batch]) < 1e-4
        if program == "soft":
            assert relative(pullback, expected) < 1e-4
        else:  # the second pass starts at a point that is rounded itself, and SqueezeNet's gates are nearly hard
            assert smallest_cosine(pullback, expected) > (0.9999 if program == "double" else 0.999)


def test_the_contribution_covers_the_zebras(zoo: Any) -> None:
    """The pixel pullback of ViT-Tiny lights patches of the background; what carries the class lies on the animals."""
    pictures, labels, _ = zoo.images("vit_tiny")
    place = labels.tolist().index(340)
    _, pullback, contribution = compiled(zoo, "vit_tiny")(pictures[place : place + 1], labels[place : place + 1])
    zebras = torch.zeros(224, 224, dtype=torch.bool)
    zebras[55:185, 5:], zebras[150:185, 165:] = True, False
    carried = torch.nn.functional.interpolate(contribution[:, None], (224, 224), mode="bilinear")[0, 0].clamp(min=0)
    strength = pullback.abs().sum(1)[0]
    assert float(carried[zebras].sum() / carried.sum()) > 0.75
    assert float(strength[zebras].sum() / strength.sum()) < 0.6  # of an area of 0.53


def test_every_gate_is_accounted_for(zoo: Any) -> None:
    for name in ("vit_tiny", "mobilenetv3_small"):
        gates = [row for row in compiled(zoo, name).ledger.rows if row.gate]
        assert gates
        assert all(row.verdict in ("softened", "frozen") for row in gates)


def test_calibration_undoes_rescaling(zoo: Any) -> None:
    """Times 10 into a squeeze layer, a tenth out of it: the same function, and with calibration the same pullback."""
    pictures, labels, _ = zoo.images("squeezenet1_0")
    x, y = pictures[:2], labels[:2]
    plain, scaled = zoo.load("squeezenet1_0").model, zoo.load("squeezenet1_0").model
    for layer in scaled[1].features:
        if hasattr(layer, "squeeze"):
            layer.squeeze.weight.data *= 10
            layer.squeeze.bias.data *= 10
            layer.expand1x1.weight.data /= 10
            layer.expand3x3.weight.data /= 10

    def pullback(model: torch.nn.Module, calibrated: bool) -> Tensor:
        rules = fxpullback.calibrate(model, pictures[8:12]) if calibrated else fxpullback.SEMANTIC
        pb = fxpullback.compile(model, (x,), rules=rules)
        temperatures = {row.temperature for row in pb.ledger.rows if row.rule == "relu"}
        assert (len(temperatures) == 26) == calibrated  # gate by gate, in the ledger
        return pb(x, y)[1]

    assert relative(plain(x), scaled(x)) < 1e-5
    assert relative(pullback(scaled, True), pullback(plain, True)) < 1e-5
    assert relative(pullback(scaled, False), pullback(plain, False)) > 1e-2
