"""Biases carried back as contributions: by hand, against autograd, in files."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback import EXACT, SEMANTIC, Ascent, Double, Pullback, Soft
from fxpullback.contract.errors import TapError
from fxpullback.contract.parts import Parts
from fxpullback.export import Session, to_onnx
from fxpullback.export.certify.recheck import recheck
from fxpullback.graph.ir import RULE, aten, calls
from fxpullback.taps import TapWarning
from fxpullback.taps.spread import moving_matrix
from tests.helpers import assert_near, changed, draw
from tests.taps.nets import Vision, falling

PROGRAMS: dict[str, Any] = {"soft": Soft(), "double": Double(2.0), "ascent": Ascent(2, 1.0)}
BIASES = "bias contribution: graph against autograd, float64"


class Twice(nn.Module):
    """Two convolutions with biases at two resolutions, and a linear map of the mean."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fine, self.coarse, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 2, 2), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(torch.relu(self.coarse(torch.relu(self.fine(x)))).mean((2, 3)))
        return result


def pushed(model: nn.Module, x: Tensor, **options: Any) -> Pullback:
    options = {"rules": SEMANTIC, "target": "cotangent", "taps": "auto", "bias": "pushed", **options}
    return fxpullback.compile(model.eval(), x[:2], **options)


def named(pb: Pullback, x: Tensor, u: Tensor) -> dict[str, Tensor]:
    return dict(zip(pb.output_names, pb(x, u), strict=True))


def test_two_layers_against_their_gradients() -> None:
    """Tapped at the coarse layer: the biases of the fine one are summed over every two by two places."""
    model, x, u = Twice().double(), draw(3, 3, 4, 6, seed=1), draw(3, 3, seed=2)
    found = named(pushed(model, x, rules=EXACT, taps="coarse"), x, u)
    fine = model.fine(x)
    coarse = model.coarse(torch.relu(fine))
    logits = model.head(torch.relu(coarse).mean((2, 3)))
    gradients = torch.autograd.grad((logits * u).sum(), [fine, coarse])
    biases = [dict(model.named_parameters())[f"{name}.bias"] for name in ("fine", "coarse")]
    maps = [(g * b.detach()[:, None, None]).sum(1) for g, b in zip(gradients, biases, strict=True)]
    wanted = nn.functional.avg_pool2d(maps[0][:, None], 2)[:, 0] * 4 + maps[1]
    assert_near(found["bias_contribution"], wanted.detach())
    left = found["parts"][:, 1] - found["bias_contribution"].sum((1, 2))
    assert_near(left, (u @ model.head.bias).detach())  # behind the mean there is no grid


def test_shifts_of_a_layer_norm_act_at_their_places() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.Flatten(2)).double()

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.cut, self.norm, self.head = model, nn.LayerNorm(4), nn.Linear(4, 3, bias=False)
            self.norm.bias.data.normal_()

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.head(self.norm(self.cut(x).transpose(1, 2)).mean(1))
            return result

    x, u = draw(3, 3, 4, 6, seed=1), draw(3, 3, seed=2)
    found = named(pushed(Tokens().double(), x), x, u)
    assert_near(found["bias_contribution"].sum((1, 2)), found["parts"][:, 1])


def test_a_class_token_keeps_to_the_number() -> None:
    model, x, u = Vision(front=1, back=2, fused=True).double(), draw(3, 3, 12, 16), draw(3, 5, seed=6)
    pb = pushed(model, x)
    found = named(pb, x, u)
    assert found["bias_contribution"].shape == found["contribution"].shape
    assert not torch.allclose(found["bias_contribution"].sum((1, 2)), found["parts"][:, 1])
    assert pb.parts == Parts("input", (3, 4))
    assert pb.verify().passed


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_certificate_covers_them(program: str) -> None:
    pb = pushed(falling().double(), draw(3, 3, 16, 16, seed=5), program=PROGRAMS[program])
    certificate = pb.verify(seed=3)
    assert certificate.passed, str(certificate)
    assert [c.name for c in certificate.checks if "bias" in c.name] == [
        BIASES,
        f"{program}: bias_contribution against autograd, float64",
    ]


def test_a_broken_graph_is_found_out() -> None:
    pb = pushed(falling().double(), draw(3, 3, 16, 16, seed=5))
    step = copy.deepcopy(pb.step)
    maps = [n for n in calls(step.graph) if n.meta.get(RULE) == "parts" and n.target is aten.mul.Tensor]
    changed(step, next(n for n in maps if n.meta["val"].ndim == 4), aten.mul.Tensor, 1.001)
    assert BIASES in {c.name for c in replace(pb, step=step).verify().checks if not c.passed}


def test_in_a_file(tmp_path: Path) -> None:
    x = draw(3, 3, 16, 16, seed=5, dtype=torch.float32)
    classes, path = torch.tensor([0, 3, 1]), tmp_path / "pushed.onnx"
    pb = pushed(falling(), x, target="index")
    to_onnx(pb, path)
    session = Session(path)
    found, wanted = session(x.numpy(), classes.numpy()), named(pb, x, classes)["bias_contribution"]
    assert session.parts == pb.parts == Parts("input", (8, 8))
    assert str(session.parts) == "input, biases, gates; biases where they act, 8x8"
    assert found.bias_contribution is not None
    np.testing.assert_allclose(found.bias_contribution, wanted.numpy(), atol=1e-5 * float(wanted.abs().max()))
    assert recheck(path).passed


@pytest.mark.parametrize(("size", "wanted"), [(14, 7), (27, 13), (4, 4), (5, 1), (7, 5), (5, 7)])
def test_moving_keeps_sums(size: int, wanted: int) -> None:
    matrix = moving_matrix(size, wanted)
    assert_near(matrix.sum(1), torch.ones(size, dtype=torch.float64))
    assert bool((matrix >= 0).all())


def test_layers_without_biases_give_zeros_and_free_sizes_a_warning() -> None:
    model, x = Twice().double(), draw(3, 3, 4, 6, seed=1)
    with pytest.warns(TapWarning, match="no bias contribution"):
        pb = pushed(model, x, taps="coarse", free_size=True)
    assert pb.output_names == ("logits", "pullback", "contribution", "parts")
    bare = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 5, 2, 2, bias=False), nn.Flatten())
    pb = pushed(bare.double(), x, taps="2")
    assert not named(pb, x, draw(3, pb.classes, seed=2))["bias_contribution"].any()


def test_without_taps_it_is_refused() -> None:
    with pytest.raises(TapError, match="there are no taps"):
        pushed(falling(), draw(2, 3, 16, 16, dtype=torch.float32), taps=None)
