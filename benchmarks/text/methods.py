"""Scores of tokens by several methods: ours, by gradients of the model, and two references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import fxpullback
from benchmarks.text.minilm import Prototypes, encoded
from fxpullback import Pullback

CONTRIBUTION, PRODUCT, STRENGTH = "contribution", "pullback x embedding", "pullback"
GRADIENT, GRADIENT_INPUT = "gradient", "gradient x input"
INTEGRATED = "integrated gradients"
BASELINES = ("zero", "mask", "pad")
"""What integrated gradients start from: embeddings of zeros, of [MASK] or of [PAD]; special tokens stay."""
LEAVE_OUT, RANDOM = "leave one out", "random"

OURS = (CONTRIBUTION, PRODUCT, STRENGTH)
THEIRS = (GRADIENT, GRADIENT_INPUT, *(f"{INTEGRATED}, {name}" for name in BASELINES))
REFERENCES = (LEAVE_OUT, RANDOM)
STEPS = 50


def files_of(model: Prototypes, tokenizer: Any) -> tuple[Pullback, Pullback]:
    """The model compiled as by default, and tapped behind every block."""
    given = encoded(tokenizer, ("The ferry was late again, so we missed the second act.", "What a day."))
    about: dict[str, Any] = {"at": "embeddings", "free_size": (1,)}
    every = [f"encoder.encoder.layer.{i}" for i in range(len(model.encoder.encoder.layer))]
    return (
        fxpullback.compile(model, given, taps="auto", **about),
        fxpullback.compile(model, given, taps=every, each_tap=True, **about),
    )


def scores_of(
    model: Prototypes,
    tokenizer: Any,
    files: tuple[Pullback, Pullback],
    text: Mapping[str, Tensor],
    target: int,
    seed: int,
) -> dict[str, Tensor]:
    """Scores `[tokens]` of one text for one class, by the name of the method."""
    ids, mask = text["input_ids"], text["attention_mask"]
    x = model.table[ids]
    plain, tapped = (outputs_of(pb, ids, mask, target) for pb in files)
    found = {
        CONTRIBUTION: plain["contribution"][0],
        PRODUCT: (plain["pullback"] * x).sum(-1)[0],
        STRENGTH: plain["pullback"].norm(dim=-1)[0],
    }
    blocks = [value[0] for name, value in tapped.items() if name.startswith("contribution.")]
    found |= {f"{CONTRIBUTION}, block {number}": value for number, value in enumerate(blocks, 1)}
    slope = gradient(model, x, mask, target)
    found[GRADIENT] = slope.norm(dim=-1)[0]
    found[GRADIENT_INPUT] = (slope * x).sum(-1)[0]
    for name in BASELINES:
        start = baseline(model, tokenizer, x, name)
        found[f"{INTEGRATED}, {name}"] = integrated(model, x, mask, target, start)
    found[LEAVE_OUT] = left_out(model, ids, target)
    found[RANDOM] = torch.rand(ids.shape[1], generator=torch.Generator().manual_seed(seed))
    return found


def outputs_of(pb: Pullback, ids: Tensor, mask: Tensor, target: int) -> dict[str, Tensor]:
    """What a compiled model returns, by name."""
    return dict(zip(pb.output_names, pb(ids, torch.tensor([target]), attention_mask=mask), strict=True))


def gradient(model: Prototypes, x: Tensor, mask: Tensor, target: int) -> Tensor:
    """The gradient of a logit by the embeddings, `[batch, tokens, dim]`."""
    held = x.detach().clone().requires_grad_(True)
    (found,) = torch.autograd.grad(model.at_embeddings(held, mask)[:, target].sum(), held)
    return found


def baseline(model: Prototypes, tokenizer: Any, x: Tensor, name: str) -> Tensor:
    """The embeddings that integrated gradients start from."""
    start = torch.zeros_like(x)
    if name != "zero":
        start[:] = model.table[{"mask": tokenizer.mask_token_id, "pad": tokenizer.pad_token_id}[name]]
    start[:, 0], start[:, -1] = x[:, 0], x[:, -1]
    return start


def integrated(model: Prototypes, x: Tensor, mask: Tensor, target: int, start: Tensor, steps: int = STEPS) -> Tensor:
    """Integrated gradients (Sundararajan et al. 2017) by the midpoint rule, `[tokens]`."""
    places = ((torch.arange(steps) + 0.5) / steps)[:, None, None].to(x)
    slopes = gradient(model, start + places * (x - start), mask.expand(steps, -1), target)
    return (slopes.mean(0) * (x - start)[0]).sum(-1)


def left_out(model: Prototypes, ids: Tensor, target: int) -> Tensor:
    """By how much the logit falls without each token, `[tokens]`: as many runs of the model as there are tokens."""
    shorter = torch.stack([torch.cat([ids[0, :i], ids[0, i + 1 :]]) for i in range(ids.shape[1])])
    with torch.no_grad():
        whole = model(ids, torch.ones_like(ids))[0, target]
        found: Tensor = whole - model(shorter, torch.ones_like(shorter))[:, target]
    return found
