"""Audio classifiers of transformers, small and with random weights: waveforms and spectrograms as they take them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fxpullback
from benchmarks.kinds.audio import FAMILIES, Classifier
from fxpullback import EXACT
from fxpullback.export import Session, to_onnx
from tests.helpers import assert_near, draw, pulled_back

pytest.importorskip("transformers", reason="the audio classifiers tested here are those of transformers")

SOME = ("wav2vec2", "wav2vec2, layer norm", "conformer", "hubert", "wavlm", "ast", "whisper")


@pytest.mark.parametrize("name", SOME)
def test_exact_equals_eager_autograd(name: str) -> None:
    model, x, u = Classifier(FAMILIES[name]).double().eval(), draw(3, *FAMILIES[name].shape), draw(3, 3, seed=1)
    pb = fxpullback.compile(model, x[:2], rules=EXACT, target="cotangent")
    logits, pullback = pb(x, u)
    assert_near(logits, model(x).detach())
    assert_near(pullback, pulled_back(model, x, u), 1e-9)


def test_the_file_of_a_waveform_classifier(tmp_path: Path) -> None:
    model, x = Classifier(FAMILIES["wav2vec2"]).eval(), draw(5, 200, dtype=torch.float32)
    pb = fxpullback.compile(model, x[:2])
    to_onnx(pb, tmp_path / "audio.onnx")
    result = Session(tmp_path / "audio.onnx")(x.numpy(), np.array([0, 1, 2, 1, 0]))
    assert_near(torch.from_numpy(result.logits), model(x).detach(), 1e-5)
    assert_near(torch.from_numpy(result.pullback), pb(x, torch.tensor([0, 1, 2, 1, 0]))[1], 1e-4)
