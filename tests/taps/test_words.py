"""Contributions of words: where they are read off by themselves, against autograd on the model itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
)

import fxpullback
from fxpullback import EXACT
from tests.export.text.tiny import VOCABULARY, bert_config
from tests.helpers import assert_near

IDS = torch.randint(5, 40, (2, 7), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * 7, [1] * 5 + [0] * 2])


def gpt2(kind: Any, layers: int = 3) -> Any:
    sizes: dict[str, Any] = {"n_embd": 16, "n_layer": layers, "n_head": 2, "n_positions": 20, "pad_token_id": 0}
    return kind(GPT2Config(**sizes, vocab_size=len(VOCABULARY), use_cache=False))


def neox() -> Any:
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "use_cache": False}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, intermediate_size=24, vocab_size=len(VOCABULARY)))


def at_first(layers: int) -> Any:
    return BertForSequenceClassification(bert_config(num_hidden_layers=layers))


def built(make: Any, *arguments: Any) -> Any:
    torch.manual_seed(0)
    model = make(*arguments)
    model.set_attn_implementation("eager")
    exact = model if make is neox else model.double()  # its rotary embeddings are float32 alone
    return exact.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("make", "arguments", "place", "positions"),
    [
        (at_first, (3,), "bert.encoder.layer.0", None),
        (at_first, (1,), "bert.embeddings", None),
        (gpt2, (GPT2ForSequenceClassification,), "transformer.h.0", None),
        (gpt2, (GPT2LMHeadModel,), "transformer.h.0", "index"),
        (neox, (), "gpt_neox.layers.0", "index"),
    ],
)
def test_the_choice_lies_where_places_are_words(make: Any, arguments: Any, place: str, positions: str | None) -> None:
    model = built(make, *arguments)
    about: dict[str, Any] = {"at": "embeddings", "output": "logits", "positions": positions, "free_size": (1,)}
    given = {"input_ids": IDS, "attention_mask": MASK}
    pb = fxpullback.compile(model, given, rules=EXACT, taps="auto", **about)
    assert pb.contributions is not None
    (chosen,) = pb.contributions.places
    assert chosen.name.startswith(place)
    target, where = torch.tensor([1, 0]), {} if positions is None else {"positions": torch.tensor([-1, 4])}
    found = dict(zip(pb.output_names, pb(IDS, target, attention_mask=MASK, **where), strict=True))["contribution"]
    wanted = by_hook(model, place, target, list(where.values()))
    assert_near(found, wanted, 1e-9 if found.dtype == torch.float64 else 1e-4)
    assert int((wanted.abs() > 1e-6).sum()) > IDS.numel() // 2  # and not all at the place that is read out


def by_hook(model: Any, place: str, target: Tensor, positions: list[Tensor]) -> Tensor:
    """Value times gradient at the output of a module of the model, summed over features."""
    held: list[Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> Any:
        value = output[0] if isinstance(output, tuple) else output
        held.append(value.requires_grad_(True) if value.is_leaf else value)

    hook = model.get_submodule(place).register_forward_hook(keep)
    logits = model(input_ids=IDS, attention_mask=MASK).logits
    hook.remove()
    if positions:
        logits = logits[torch.arange(2), positions[0]]
    (gradient,) = torch.autograd.grad(logits[torch.arange(2), target].sum(), held[0])
    return (held[0].detach() * gradient).sum(-1)
