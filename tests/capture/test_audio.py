"""Audio classifiers of transformers, small and with random weights: waveforms and spectrograms as they take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback import EXACT
from fxpullback.export import Session, to_onnx
from tests.helpers import assert_near, draw, pulled_back

transformers = pytest.importorskip("transformers", reason="the audio classifiers tested here are those of transformers")

ENCODER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_labels": 3,
}
WAVE = {
    "conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 4), "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8, **ENCODER,
}  # fmt: skip
STABLE = {**WAVE, "do_stable_layer_norm": True, "feat_extract_norm": "layer", "use_weighted_layer_sum": True}
CONFORMER = {**WAVE, "conv_depthwise_kernel_size": 5}
WHISPER = {
    "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "num_mel_bins": 8,
    "max_source_positions": 10, "num_labels": 3, "classifier_proj_size": 8, "vocab_size": 30, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "decoder_layers": 1, "decoder_ffn_dim": 8,
    "decoder_attention_heads": 2,
}  # fmt: skip
PATCHES = {**ENCODER, "max_length": 24, "num_mel_bins": 16, "patch_size": 8, "frequency_stride": 4, "time_stride": 8}

FAMILIES: dict[str, tuple[str, str, dict[str, Any], tuple[int, ...]]] = {
    "wav2vec2": ("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", WAVE, (200,)),
    "wav2vec2, layer norm": ("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", STABLE, (200,)),
    "conformer": ("Wav2Vec2ConformerForSequenceClassification", "Wav2Vec2ConformerConfig", CONFORMER, (200,)),
    "hubert": ("HubertForSequenceClassification", "HubertConfig", WAVE, (200,)),
    "wavlm": ("WavLMForSequenceClassification", "WavLMConfig", WAVE, (200,)),
    "ast": ("ASTForAudioClassification", "ASTConfig", PATCHES, (24, 16)),
    "whisper": ("WhisperForAudioClassification", "WhisperConfig", WHISPER, (8, 20)),
}


class Classifier(nn.Module):
    """The logits alone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        model, config, options, _ = FAMILIES[name]
        torch.manual_seed(0)
        self.model = getattr(transformers, model)(getattr(transformers, config)(**options))

    def forward(self, x: Tensor) -> Any:
        return self.model(x).logits


@pytest.mark.parametrize("name", FAMILIES)
def test_exact_equals_eager_autograd(name: str) -> None:
    model, x, u = Classifier(name).double().eval(), draw(3, *FAMILIES[name][-1]), draw(3, 3, seed=1)
    pb = fxpullback.compile(model, x[:2], rules=EXACT, target="cotangent")
    logits, pullback = pb(x, u)
    assert_near(logits, model(x).detach())
    assert_near(pullback, pulled_back(model, x, u), 1e-9)


def test_the_file_of_a_waveform_classifier(tmp_path: Path) -> None:
    model, x = Classifier("wav2vec2").eval(), draw(5, 200, dtype=torch.float32)
    pb = fxpullback.compile(model, x[:2])
    to_onnx(pb, tmp_path / "audio.onnx")
    result = Session(tmp_path / "audio.onnx")(x.numpy(), np.array([0, 1, 2, 1, 0]))
    assert_near(torch.from_numpy(result.logits), model(x).detach(), 1e-5)
    assert_near(torch.from_numpy(result.pullback), pb(x, torch.tensor([0, 1, 2, 1, 0]))[1], 1e-4)
