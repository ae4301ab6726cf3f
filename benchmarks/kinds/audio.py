"""Classifiers of sound of transformers: waveforms and spectrograms as their feature extractors make them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.kinds.case import Case, Inputs

LABELS = 3
ENCODER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_labels": LABELS,
}
WAVE = {
    "conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 4), "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8, **ENCODER,
}  # fmt: skip
STABLE = {**WAVE, "do_stable_layer_norm": True, "feat_extract_norm": "layer", "use_weighted_layer_sum": True}
CONFORMER = {**WAVE, "conv_depthwise_kernel_size": 5}
SEW = {**WAVE, "squeeze_factor": 2}
WHISPER = {
    "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "num_mel_bins": 8,
    "max_source_positions": 10, "num_labels": LABELS, "classifier_proj_size": 8, "vocab_size": 30, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "decoder_layers": 1, "decoder_ffn_dim": 8,
    "decoder_attention_heads": 2,
}  # fmt: skip
PATCHES = {**ENCODER, "max_length": 24, "num_mel_bins": 16, "patch_size": 8, "frequency_stride": 4, "time_stride": 8}


@dataclass(frozen=True)
class Sound:
    """A classifier of sound.

    Attributes:
        model: class of the model in transformers.
        config: class of its configuration.
        settings: what that is made with.
        shape: of one input.
    """

    model: str
    config: str
    settings: Mapping[str, Any]
    shape: tuple[int, ...]


FAMILIES: dict[str, Sound] = {
    "wav2vec2": Sound("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", WAVE, (200,)),
    "wav2vec2, layer norm": Sound("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", STABLE, (200,)),
    "conformer": Sound("Wav2Vec2ConformerForSequenceClassification", "Wav2Vec2ConformerConfig", CONFORMER, (200,)),
    "hubert": Sound("HubertForSequenceClassification", "HubertConfig", WAVE, (200,)),
    "wavlm": Sound("WavLMForSequenceClassification", "WavLMConfig", WAVE, (200,)),
    "unispeech": Sound("UniSpeechForSequenceClassification", "UniSpeechConfig", WAVE, (200,)),
    "unispeech-sat": Sound("UniSpeechSatForSequenceClassification", "UniSpeechSatConfig", WAVE, (200,)),
    "data2vec": Sound("Data2VecAudioForSequenceClassification", "Data2VecAudioConfig", WAVE, (200,)),
    "sew": Sound("SEWForSequenceClassification", "SEWConfig", SEW, (200,)),
    "ast": Sound("ASTForAudioClassification", "ASTConfig", PATCHES, (24, 16)),
    "whisper": Sound("WhisperForAudioClassification", "WhisperConfig", WHISPER, (8, 20)),
}


class Classifier(nn.Module):
    """The logits alone."""

    def __init__(self, sound: Sound) -> None:
        super().__init__()
        import transformers

        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = getattr(transformers, sound.model)(getattr(transformers, sound.config)(**sound.settings))

    def forward(self, x: torch.Tensor) -> Any:
        """Logits `[batch, labels]`."""
        return self.model(x).logits


def audio_cases() -> list[Case]:
    """One case for each family."""
    return [
        Case(f"audio:{name}", sound.model, partial(_built, sound), partial(_inputs, sound))
        for name, sound in FAMILIES.items()
    ]


def _built(sound: Sound) -> nn.Module:
    return Classifier(sound).eval()


def _inputs(sound: Sound, batch: int, longer: bool) -> Inputs:
    drawn = torch.Generator().manual_seed(batch)
    return {"x": torch.randn(batch, *sound.shape, generator=drawn)}
