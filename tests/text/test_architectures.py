"""Architectures of transformers at their embeddings, against torch's own gradient of the model as it is.

The oracle runs the model itself in float64, its embedding layer handing on what it looks up, at a batch and, where the
length is free, a length that the compiler has not seen. Six by default, all of them with FXPULLBACK_ALL=1.
"""

from __future__ import annotations

import os

import pytest
import torch

from benchmarks.kinds.cases import case
from benchmarks.kinds.measure import BOUND, ROUNDED, compared, compiled
from benchmarks.kinds.page import RESULTS
from benchmarks.kinds.texts import text_cases
from benchmarks.rows import read
from fxpullback.contract.errors import CaptureError, FxPullbackError

pytest.importorskip("transformers", reason="the architectures are those of transformers")

SOME = [
    "text:DistilBertForSequenceClassification",
    "text:ModernBertForTokenClassification",
    "text:GPT2LMHeadModel",
    "text:Gemma2ForSequenceClassification",
    "text:T5EncoderModel",
    "text:XLNetForSequenceClassification",
]
ALL = bool(os.environ.get("FXPULLBACK_ALL"))


@pytest.mark.parametrize("spec", [one.spec for one in text_cases()] if ALL else SOME)
def test_exact_is_torchs_gradient_at_the_embeddings(spec: str) -> None:
    row = read(RESULTS).get(spec)
    if row is not None and row.status != "ok":
        pytest.skip(f"docs/support.md lists it as not passing: {row.reason}")
    error, _, rounded = compared(case(spec))
    assert error < BOUND
    assert rounded is None or rounded < ROUNDED


def test_a_length_that_cannot_be_free_is_fixed_and_said() -> None:
    one = case("text:FNetForSequenceClassification")
    pb, why = compiled(one, one.build(), torch.float32)
    assert not pb.graph.signature.free
    assert "transforms axis 1, whose length is free" in why


def test_a_model_that_is_refused_at_one_length_too_is_an_error_of_ours() -> None:
    one = case("text:BertForSequenceClassification")
    model = one.build()
    model.forward = lambda input_ids, attention_mask: input_ids.undefined
    with pytest.raises(FxPullbackError) as raised:
        compiled(one, model, torch.float32)
    assert isinstance(raised.value, CaptureError)
