"""`hf:FOLDER` of classifiers of sound: beside transformers with its own feature extractor, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from fxpullback.contract.errors import ModelSourceError
from fxpullback.export import Session
from fxpullback.export.zoo.hugging_face_sound import Sound
from fxpullback.export.zoo.models import load_model
from tests.export.cli.commands import run

LABELS: dict[str, Any] = {"id2label": {0: "bark", 1: "song", 2: "rain"}, "label2id": {"bark": 0, "song": 1, "rain": 2}}
SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, **LABELS,
}  # fmt: skip
WAVES: dict[str, Any] = SIZES | {
    "conv_dim": (8, 8), "conv_kernel": (10, 4), "conv_stride": (5, 4), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8,
}  # fmt: skip
WHISPER: dict[str, Any] = {
    "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "num_mel_bins": 8,
    "max_source_positions": 50, "classifier_proj_size": 8, "decoder_layers": 1, "decoder_attention_heads": 2,
    "decoder_ffn_dim": 24, "vocab_size": 20, "pad_token_id": 0, **LABELS,
}  # fmt: skip
AST: dict[str, Any] = SIZES | {"num_mel_bins": 16, "max_length": 24, "patch_size": 8, "frequency_stride": 8}
FOLDERS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], list[str]]] = {
    "wav2vec2": ("Wav2Vec2ForSequenceClassification", WAVES, "Wav2Vec2FeatureExtractor", {}, ["--length", "400"]),
    "hubert": (
        "HubertForSequenceClassification", WAVES, "Wav2Vec2FeatureExtractor", {"do_normalize": False},
        ["--length", "400"],
    ),
    "ast": (
        "ASTForAudioClassification", AST | {"time_stride": 8}, "ASTFeatureExtractor",
        {"num_mel_bins": 16, "max_length": 24}, ["--length", "4000"],
    ),
    "whisper": (
        "WhisperForAudioClassification", WHISPER, "WhisperFeatureExtractor", {"feature_size": 8, "chunk_length": 1}, [],
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def folder(name: str, **changes: Any) -> tuple[Path, Any, Any]:
    """A folder of a model with random weights, the model, and its feature extractor."""
    kind, settings, processor, options, _ = FOLDERS[name]
    kinds: Any = transformers
    torch.manual_seed(0)
    model = getattr(kinds, kind)(getattr(kinds, kind).config_class(**settings)).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    extractor = getattr(kinds, processor)(**(options | changes))
    model.save_pretrained(name)
    extractor.save_pretrained(name)
    return Path(name), model, extractor


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_agrees_with_transformers_and_autograd(name: str) -> None:
    path, model, extractor = folder(name)
    run("compile", f"hf:{path}", "--rules", "exact", "-o", "sound.onnx", *FOLDERS[name][4])
    session = Session("sound.onnx")
    assert session.classes == ["bark", "song", "rain"]
    recipe: Any = session.preprocessing
    assert recipe["sampling_rate"] == 16000
    heard = np.random.default_rng(5).standard_normal(recipe["samples"]).astype(np.float32) * np.float32(0.2)
    made = extractor(heard, sampling_rate=16000, return_tensors="pt")[model.main_input_name].requires_grad_(True)
    logits = model(made).logits
    (wanted,) = torch.autograd.grad(logits[0, 2], made)
    given = made.detach().numpy()
    if recipe["kind"] == "waveform":
        given = Sound(**recipe).waveform(heard)
    result = session(given, [2])
    np.testing.assert_allclose(result.logits, logits.detach(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(result.pullback, wanted, atol=5e-4 * float(wanted.abs().max()))


def test_the_recipe_of_a_spectrogram() -> None:
    path, _, _ = folder("whisper")
    recipe: Any = load_model(f"hf:{path}").sound
    assert recipe["extractor"] == "WhisperFeatureExtractor"
    kinds: Any = transformers
    again = getattr(kinds, recipe["extractor"])(
        **{key: value for key, value in recipe["settings"].items() if key != "feature_extractor_type"}
    )
    heard = np.sin(np.arange(recipe["samples"]) / 9).astype(np.float32)
    found, wanted = (
        one(heard, sampling_rate=16000, return_tensors="np")["input_features"] for one in (again, folder("whisper")[2])
    )
    np.testing.assert_array_equal(found, wanted)


def test_what_is_refused() -> None:
    path, _, _ = folder("wav2vec2")
    run("compile", f"hf:{path}", "-o", "sound.onnx", "--length", 400)
    _, said = run("explain", "sound.onnx", "a.png", code=1)
    assert "it takes a sound" in said
    (path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelSourceError, match="no feature extractor"):
        load_model(f"hf:{path}", length=400)
