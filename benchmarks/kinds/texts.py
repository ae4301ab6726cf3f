"""Transformers of text, explained at their embeddings, the length free."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.kinds.case import POSITIONS, Case, Inputs, at_positions, logits_of
from benchmarks.text.architectures import ARCHITECTURES, LENGTH, Architecture, examples

LONGER = 6
ONE_LENGTH = {"DebertaConfig", "FNetConfig", "NystromformerConfig", "FunnelConfig", "MambaConfig"}
"""Configurations whose models hold at one length: they loop over it, transform it, or make a number of it."""


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
                **({} if one.config in ONE_LENGTH else {"free_size": [1]}),
                **({"positions": one.positions} if one.positions else {}),
            },
            _embeddings,
            partial(_logits, one),
        )
        for one in ARCHITECTURES
    ]


def _inputs(one: Architecture, batch: int, longer: bool) -> Inputs:
    given = examples(batch, LENGTH + LONGER * longer, seed=batch)
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
