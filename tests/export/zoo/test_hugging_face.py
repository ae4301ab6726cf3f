"""`hf:FOLDER`: folders as transformers writes them, and every way in which one may be none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertForTokenClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from fxpullback.contract.errors import ModelSourceError
from fxpullback.export.zoo.hugging_face_tokenizer import SENTENCES
from fxpullback.export.zoo.models import LoadedModel, load_model
from tests.export.text.tiny import LABELS, VOCABULARY, bert, bert_config, tokenizer


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """One that may be changed."""
    return Path(shutil.copytree(whole, tmp_path / "folder"))


def changed(folder: Path, **entries: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def loaded(folder: Path, **options: Any) -> LoadedModel:
    return load_model(f"hf:{folder}", **options)


def test_a_folder_is_loaded_with_its_tokenizer_and_labels(whole: Path) -> None:
    found = loaded(whole)
    assert found.names == ("input_ids", "attention_mask", "token_type_ids")
    assert found.classes == list(LABELS)
    assert found.notes == ()
    assert isinstance(found.model, torch.nn.Module)
    assert not found.model.training
    ids, (mask, _) = found.example, found.extras
    wanted = tokenizer()(list(SENTENCES), padding=True, return_tensors="pt", truncation=True)
    assert torch.equal(ids, wanted["input_ids"])
    assert torch.equal(mask, wanted["attention_mask"])
    assert 0 < int(mask[1].sum()) < mask.shape[1] == int(mask[0].sum())
    assert found.text is not None
    assert (found.text.longest, found.text.padding, found.text.side) == (32, 0, "right")
    assert found.text.specials["mask"] == "[MASK]"


def test_the_weights_are_those_of_the_folder(whole: Path) -> None:
    state = load_file(whole / "model.safetensors")
    model = loaded(whole).model
    assert isinstance(model, torch.nn.Module)
    own = dict(model.named_parameters())
    assert {name: value.dtype for name, value in own.items()} == dict.fromkeys(state, torch.float32)
    assert all(torch.equal(own[name], value) for name, value in state.items())


def test_half_precision_weights_become_float32(folder: Path) -> None:
    state = {name: value.half() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    changed(folder, dtype="float16")
    model = loaded(folder).model
    assert isinstance(model, torch.nn.Module)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_length_fills_the_examples_up(whole: Path) -> None:
    assert loaded(whole, length=32).example.shape == (2, 32)
    assert loaded(whole, length=5).example.shape == (2, 5)
    with pytest.raises(ModelSourceError, match="--length 33 is more than the 32 tokens"):
        loaded(whole, length=33)
    with pytest.raises(ModelSourceError, match="--length is for models of text"):
        load_model("timm:resnet18", length=3)


def test_positions_bound_the_length(tmp_path: Path) -> None:
    config = RobertaConfig(**bert_config(max_position_embeddings=20, pad_token_id=1).to_dict())
    RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer(model_max_length=1 << 40).save_pretrained(tmp_path)
    text = loaded(tmp_path).text
    assert text is not None
    assert text.longest == 18  # two rows in front are for padding


def test_labels_that_are_not_the_logits_are_left_out(tmp_path: Path) -> None:
    BertForTokenClassification(bert_config()).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    assert loaded(tmp_path).classes == list(LABELS)
    names = tmp_path / "names.txt"
    names.write_text("a\nb\n")
    with pytest.raises(ModelSourceError, match="2 names for a model with 3 classes"):
        loaded(tmp_path, classes=names)


def test_a_missing_padding_token_is_made_up_and_said(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 40, "vocab_size": len(VOCABULARY)}
    GPT2ForSequenceClassification(GPT2Config(**sizes, bos_token_id=2, eos_token_id=3)).save_pretrained(tmp_path)
    tokenizer(pad_token=None, eos_token="[SEP]", model_input_names=["input_ids", "attention_mask"]).save_pretrained(
        tmp_path
    )
    found = loaded(tmp_path)
    assert len(found.notes) == 2
    assert "[SEP] is taken, hidden by the mask" in found.notes[0]
    assert found.text is not None
    assert found.text.padding == 3


@pytest.mark.parametrize(
    "options",
    [
        {"weights": Path("w.safetensors")},
        {"pretrained": True},
        {"size": 8},
        {"input_shape": (3,)},
        {"options": {"a": 1}},
    ],
)
def test_options_of_other_models_are_refused(whole: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ModelSourceError, match=r"brings its own|exclude each other|it takes pictures"):
        loaded(whole, **options)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match=r"no folder .*nothing is downloaded"):
        loaded(tmp_path / "absent")
    with pytest.raises(ModelSourceError, match=r"no config\.json"):
        loaded(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelSourceError, match="not readable as JSON"):
        loaded(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelSourceError, match="a JSON object is wanted"):
        loaded(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelSourceError, match="names no architecture"):
        loaded(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelSourceError, match="merge_and_unload"):
        loaded(tmp_path)


def test_architectures_that_are_not_taken(folder: Path) -> None:
    changed(folder, architectures=["MyOwnModel"], auto_map={"AutoModel": "mine.MyOwnModel"})
    (folder / "mine.py").write_text("raise SystemExit('code of the folder was run')")
    with pytest.raises(ModelSourceError, match=r"has no model MyOwnModel.*which is never run"):
        loaded(folder)
    for name in ("pipeline", "AutoTokenizer", "BertConfig"):  # names of transformers that are no models
        changed(folder, architectures=[name])
        with pytest.raises(ModelSourceError, match=f"has no model {name}"):
            loaded(folder)
    changed(folder, quantization_config={"quant_method": "gptq"})
    with pytest.raises(ModelSourceError, match=r"quantised \(gptq\)"):
        loaded(folder)


def test_a_model_without_a_head_is_refused(tmp_path: Path) -> None:
    BertModel(bert_config()).save_pretrained(tmp_path)
    with pytest.raises(
        ModelSourceError, match=r"BertModel has no head.*BertForSequenceClassification.*examples/text\.py"
    ):
        loaded(tmp_path)


def test_weights_that_do_not_fit_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    save_file({k: v for k, v in state.items() if "classifier" not in k}, path, {"format": "pt"})
    with pytest.raises(
        ModelSourceError, match=r"2 missing, which would be random: classifier\.bias, classifier\.weight"
    ):
        loaded(folder)
    save_file(state | {"more": torch.ones(1)}, path, {"format": "pt"})
    with pytest.raises(ModelSourceError, match="1 unexpected: more"):
        loaded(folder)
    save_file(state | {"classifier.weight": torch.ones(2, 16)}, path, {"format": "pt"})
    with pytest.raises(ModelSourceError, match=r"1 of another shape: classifier\.weight"):
        loaded(folder)
    save_file(state | {"classifier.bias": torch.full((3,), float("nan"))}, path, {"format": "pt"})
    with pytest.raises(ModelSourceError, match=r"classifier\.bias holds NaN"):
        loaded(folder)


def test_weights_that_are_none_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(ModelSourceError, match="git lfs pull"):
        loaded(folder)
    path.write_bytes(b"\x08" + bytes(40))
    with pytest.raises(ModelSourceError, match="not a whole safetensors file"):
        loaded(folder)
    path.unlink()
    with pytest.raises(ModelSourceError, match="there are no weights"):
        loaded(folder)


def test_pickled_weights_are_refused_and_the_advice_works(folder: Path) -> None:
    path = folder / "model.safetensors"
    torch.save(load_file(path), folder / "pytorch_model.bin")
    path.unlink()
    with pytest.raises(ModelSourceError, match="can run code") as caught:
        loaded(folder)
    code = str(caught.value).partition('python -c "')[2].rpartition('"')[0]
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
    assert loaded(folder).classes == list(LABELS)


def test_a_folder_without_a_tokenizer_is_refused(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelSourceError, match=r"the folder has no tokenizer: there is no tokenizer\.json"):
        loaded(folder)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    bert(tmp_path, vocab_size=12)
    with pytest.raises(ModelSourceError, match=r"the model has 12 embeddings: they do not belong together"):
        loaded(tmp_path)


def test_without_transformers_the_extra_is_named(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelSourceError, match=r"pip install 'fxpullback\[text\]'"):
        loaded(whole)
