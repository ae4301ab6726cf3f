"""Transformers of text, explained at their embeddings, the length free where the model allows it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.kinds.case import POSITIONS, Case, Inputs, at_positions, logits_of
from benchmarks.text.architectures import ARCHITECTURES, Architecture, examples

LONGER = 6
SEVERAL = {"XLNetConfig"}
"""Configurations whose models return states beside their logits."""


def text_cases() -> list[Case]:
    """One case for each architecture of `benchmarks.text.architectures`."""
    return [
        Case(
            f"text:{one.name}",
            one.config.removesuffix("Config").removesuffix("Text"),
            one.build,
            partial(_inputs, one),
            {
                "at": "embeddings",
                "free_size": [1],
                **({"output": "logits"} if one.config in SEVERAL else {}),
                **({"positions": one.positions} if one.positions else {}),
            },
            _embeddings,
            partial(_logits, one),
        )
        for one in ARCHITECTURES
    ]


def _inputs(one: Architecture, batch: int, longer: bool) -> Inputs:
    given = examples(batch, one.length + LONGER * longer, seed=batch)
    drawn = torch.Generator().manual_seed(batch)
    if one.positions == "index":
        given[POSITIONS] = torch.randint(0, 4, (batch,), generator=drawn)
    if one.positions == "mask":
        given[POSITIONS] = torch.rand(given["input_ids"].shape, generator=drawn) < 0.5
        given[POSITIONS][:, 0] = True
    return given


def _embeddings(model: nn.Module) -> nn.Module:
    inner: Any = model if hasattr(model, "get_input_embeddings") else model.encoder
    found: nn.Module = inner.get_input_embeddings()
    return found


def _logits(one: Architecture, result: Any, given: Inputs) -> Tensor:
    return at_positions(one.positions, logits_of(result), given)
