"""`hf:FOLDER` of models of a picture and a text: beside transformers and autograd, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor

from fxpullback.contract.errors import ModelSourceError
from fxpullback.export import Session
from fxpullback.export.text.tokenizer import Reader
from fxpullback.export.zoo.models import load_model
from tests.export.cli.commands import run
from tests.export.text.tiny import VOCABULARY, tokenizer

TEXT, LENGTH = "What a good day", 9
TOWER: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "projection_dim": 8,
}  # fmt: skip
SEEING = TOWER | {"image_size": 16, "patch_size": 8, "initializer_range": 0.3}
READING = TOWER | {
    "vocab_size": len(VOCABULARY), "max_position_embeddings": LENGTH, "pad_token_id": VOCABULARY["[PAD]"],
    "bos_token_id": VOCABULARY["[CLS]"], "eos_token_id": VOCABULARY["[SEP]"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def folder(name: str, **options: Any) -> tuple[Path, Any]:
    """A folder of a model with random weights, and the model."""
    kinds: Any = transformers
    torch.manual_seed(0)
    model = getattr(kinds, f"{name}Model")(
        getattr(kinds, f"{name}Config")(text_config=READING, vision_config=SEEING, projection_dim=8)
    ).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    sizes = {"shortest_edge": 16} if name == "CLIP" else {"height": 16, "width": 16}
    crop = {"crop_size": {"height": 16, "width": 16}} if name == "CLIP" else {}
    path = Path(name)
    model.save_pretrained(path)
    getattr(kinds, f"{name}ImageProcessor")(size=sizes, **crop).save_pretrained(path)
    names = ["input_ids", "attention_mask"] if name == "CLIP" else ["input_ids"]
    tokenizer(model_max_length=LENGTH, **({"model_input_names": names} | options)).save_pretrained(path)
    return path, model


def picture() -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("meadow.png")
    return Path("meadow.png")


def by_transformers(path: Path, model: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The similarity of the picture and the text, and its gradients by RGB in [-1, 1] and by the embeddings."""
    kinds: Any = transformers
    processor = kinds.AutoImageProcessor.from_pretrained(path)
    reader = kinds.AutoTokenizer.from_pretrained(path)
    pixels = processor(Image.open(picture()), return_tensors="pt")["pixel_values"].requires_grad_(True)
    given = reader(TEXT, padding="max_length", max_length=LENGTH, return_tensors="pt")
    seen: list[Tensor] = []
    table = model.text_model.get_input_embeddings()
    hook = table.register_forward_hook(lambda _, args, output: seen.append(output.requires_grad_(True)))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    logits = model(pixel_values=pixels, **given).logits_per_image
    hook.remove()
    by_pixel, by_word = torch.autograd.grad(logits[0, 0], (pixels, seen[0]))
    std = torch.tensor(processor.image_std).view(1, 3, 1, 1)
    return logits.detach(), by_pixel * 0.5 / std, by_word


@pytest.mark.parametrize("name", ["CLIP", "Siglip"])
def test_a_file_agrees_with_transformers_and_autograd(name: str) -> None:
    path, model = folder(name)
    run("compile", f"hf:{path}", "--rules", "exact", "-o", "pair.onnx")
    logits, by_pixel, by_word = by_transformers(path, model)
    session = Session("pair.onnx")
    assert list(session.metadata.explains) == ["pixel_values", "input_ids"]
    tokens = Reader.of(session, besides=("pixel_values",), ids="input_ids")(TEXT)
    pixels = np.asarray(Image.open("meadow.png"), np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
    result = session(pixels, [0], **tokens.inputs)
    np.testing.assert_allclose(result.logits, logits, rtol=1e-4, atol=1e-5)
    for part, wanted in (("pixel_values", by_pixel), ("input_ids", by_word)):
        np.testing.assert_allclose(result.pullbacks[part], wanted, atol=2e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", ["CLIP", "Siglip"])
def test_the_whole_way(name: str) -> None:
    path, _ = folder(name)
    run("compile", f"hf:{path}", "-o", "pair.onnx")
    printed, said = run("explain", "pair.onnx", picture(), "--text", TEXT, "--html", "page.html", "-o", "drawn.png")
    assert printed.startswith("match: logit")
    assert "pixel_values: contribution" in printed
    assert "input_ids: contribution" in printed
    assert f"the text has 6 tokens and is filled up to {LENGTH}" in said
    assert Path("drawn.png").is_file()
    assert "data:image/png" in Path("page.html").read_text(encoding="utf-8")


def test_a_shorter_text_and_what_is_refused() -> None:
    path, _ = folder("CLIP")
    assert load_model(f"hf:{path}", length=7).extras[0].shape == (2, 7)
    with pytest.raises(ModelSourceError, match="--length 10 is more than the 9 tokens the model takes"):
        load_model(f"hf:{path}", length=LENGTH + 1)
    _, said = run("compile", f"hf:{path}", "--explain", "pixel_values", "-o", "a.onnx", code=1)
    assert "pixel_values and input_ids are explained together" in said
    path, _ = folder("CLIP", model_input_names=["input_ids"])
    with pytest.raises(ModelSourceError, match="gives no attention_mask, so what a text is filled up with"):
        load_model(f"hf:{path}")
