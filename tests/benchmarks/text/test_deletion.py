"""Deletion of tokens on a small encoder: scores by what they are defined as, falls counted by hand, and the page."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BertModel

from benchmarks.text.deletion import MASK, OUT, Row, as_csv, bootstrapped, falls, table_of
from benchmarks.text.methods import (
    CONTRIBUTION,
    GRADIENT,
    GRADIENT_INPUT,
    INTEGRATED,
    LEAVE_OUT,
    OURS,
    REFERENCES,
    THEIRS,
    baseline,
    files_of,
    integrated,
    scores_of,
)
from benchmarks.text.minilm import Prototypes, encoded, with_prototypes
from benchmarks.text.page import HEADS, page, word
from benchmarks.text.sentences import CLASSES, SENTENCES
from fxpullback.export.evaluate.intervals import Mean
from tests.export.text.tiny import bert_config, tokenizer

TEXT = "the ferry was late again"
TARGET = 1


@cache
def model() -> Prototypes:
    torch.manual_seed(0)
    encoder: Any = BertModel(bert_config(num_hidden_layers=2), add_pooling_layer=False)
    encoder.set_attn_implementation("eager")
    made = Prototypes(encoder).eval().requires_grad_(False)
    return with_prototypes(made, tokenizer(), {"a": ("a good day", "we walked home"), "b": ("a bad film",)})


@cache
def scores() -> dict[str, Tensor]:
    return scores_of(model(), tokenizer(), files_of(model(), tokenizer()), encoded(tokenizer(), [TEXT]), TARGET, 0)


def test_every_method_scores_every_token() -> None:
    found = scores()
    assert set(found) == {*OURS, *THEIRS, *REFERENCES, *(f"{CONTRIBUTION}, block {i}" for i in (1, 2))}
    assert {tuple(value.shape) for value in found.values()} == {(7,)}
    assert torch.equal(found[CONTRIBUTION], found[f"{CONTRIBUTION}, block 1"])


def test_gradients_are_those_of_the_model() -> None:
    given = encoded(tokenizer(), [TEXT])
    held = model().table[given["input_ids"]].clone().requires_grad_(True)
    logits = model().at_embeddings(held, given["attention_mask"])
    assert torch.allclose(logits, model()(**given), atol=1e-6)
    logits[0, TARGET].backward()
    assert held.grad is not None
    assert torch.allclose(scores()[GRADIENT], held.grad[0].norm(dim=-1), atol=1e-6)
    assert torch.allclose(scores()[GRADIENT_INPUT], (held.grad * held)[0].sum(-1), atol=1e-6)


@pytest.mark.parametrize("name", ["zero", "mask", "pad"])
def test_integrated_gradients_sum_to_the_difference(name: str) -> None:
    given = encoded(tokenizer(), [TEXT])
    mask, x = given["attention_mask"], model().table[given["input_ids"]]
    start = baseline(model(), tokenizer(), x, name)
    found = integrated(model(), x, mask, TARGET, start, steps=4000)
    gap = (model().at_embeddings(x, mask) - model().at_embeddings(start, mask))[0, TARGET]
    assert float(found.sum()) == pytest.approx(float(gap), abs=1e-3)
    assert found[0] == found[-1] == 0
    few = scores()[f"{INTEGRATED}, {name}"]
    assert torch.corrcoef(torch.stack([few, found]))[0, 1] > 0.9


def test_leaving_one_out_is_the_first_fall() -> None:
    ids = encoded(tokenizer(), [TEXT])["input_ids"]
    found = scores()[LEAVE_OUT]
    order = torch.argsort(found[1:-1], descending=True) + 1
    curve = falls(model(), tokenizer(), ids, found, TARGET, OUT)
    assert float(curve[1]) == pytest.approx(float(found[order[0]]), abs=1e-5)


@pytest.mark.parametrize("way", [OUT, MASK])
def test_falls_are_those_of_the_shortened_texts(way: str) -> None:
    words = TEXT.split()
    rank = [3, 0, 4, 1, 2]  # of the words, the larger the earlier gone
    values = torch.tensor([9.0, *(float(r) for r in rank), 9.0])
    curve = falls(model(), tokenizer(), encoded(tokenizer(), [TEXT])["input_ids"], values, TARGET, way)
    whole = float(model()(**encoded(tokenizer(), [TEXT]))[0, TARGET])
    assert len(curve) == 6
    for gone in range(6):
        kept = ["[MASK]" if r >= 5 - gone else w for w, r in zip(words, rank, strict=True)]
        text = " ".join(w for w in kept if way == MASK or w != "[MASK]")
        left = float(model()(**encoded(tokenizer(), [text]))[0, TARGET])
        assert float(curve[gone]) == pytest.approx(whole - left, abs=1e-5)


def test_intervals_hold_the_mean_and_are_the_same_again() -> None:
    values = np.random.default_rng(1).normal(1.0, 2.0, 60).tolist()
    found = bootstrapped(values)
    assert found == bootstrapped(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.low < found.mean < found.high
    half = 1.96 * np.std(values, ddof=1) / np.sqrt(60)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)


def test_the_page_says_ahead_only_where_the_interval_leaves_zero_out() -> None:
    assert [word(Mean(9, m, low, high)) for m, low, high in ((1, 0.1, 2), (1, -0.1, 2), (-1, -2, -0.1))] == [
        "ahead",
        "level",
        "behind",
    ]
    methods = dict.fromkeys((*THEIRS, *REFERENCES), 1.0) | dict.fromkeys(OURS, 2.0)
    methods |= {f"{CONTRIBUTION}, block 1": 2.0, "gradient": 3.0}
    rows = [
        Row(head, way, span, name, text, fall + 0.001 * text)
        for head in HEADS
        for way in (OUT, MASK)
        for span in ("whole", "first")
        for name, fall in methods.items()
        for text in range(4)
    ]
    table = table_of(rows)
    text = page(table, bootstrapped, dict.fromkeys(HEADS, 0.5), 4)
    assert "the contribution beside gradient x input: taken out, all along: ahead (+1.00)" in text
    assert "the contribution beside gradient: taken out, all along: behind (-1.00)" in text
    assert as_csv(table).count("\n") == 1 + len(rows) // 4


def test_what_makes_a_class_is_not_explained() -> None:
    made = {text for texts in CLASSES.values() for text in texts}
    explained = [text for texts in SENTENCES.values() for text in texts]
    assert len(explained) == len(set(explained)) == 60
    assert not made & set(explained)
    assert list(CLASSES) == list(SENTENCES)
