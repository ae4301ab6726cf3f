"""Networks that compute with complex numbers: against eager autograd of the network itself, and in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fxpullback
from fxpullback import EXACT
from fxpullback.export import Session, to_onnx
from tests.capture.spectral_networks import NETWORKS, Beside, FourierMixing, Mask, SpectralConvolution, StateSpace
from tests.helpers import assert_near, draw, pulled_back


@pytest.mark.parametrize("network", NETWORKS)
def test_exact_equals_eager_autograd(network: Any) -> None:
    torch.manual_seed(0)
    model = network().double().eval()
    x, u = draw(3, *network.size), draw(3, model.head.out_features, seed=1)
    pb = fxpullback.compile(model, x, rules=EXACT, target="cotangent")
    logits, pullback = pb(x, u)
    assert_near(logits, model(x).detach())
    assert_near(pullback, pulled_back(model, x, u), 1e-9)
    assert pb.verify().passed


@pytest.mark.parametrize("network", [Beside, Mask, FourierMixing, SpectralConvolution, StateSpace])
def test_the_file_gives_logits_and_pullback(network: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = network().eval()
    x = draw(5, *network.size, dtype=torch.float32)
    pb = fxpullback.compile(model, x[:2])
    to_onnx(pb, tmp_path / "model.onnx")
    target = torch.tensor([0, 1, 2, 0, 1])
    result = Session(tmp_path / "model.onnx")(x.numpy(), target.numpy())
    logits, pullback = pb(x, target)
    assert_near(torch.from_numpy(result.logits), model(x).detach(), 1e-5)
    assert_near(torch.from_numpy(result.pullback), pullback, 1e-4)
    assert_near(logits, model(x).detach(), 1e-5)
