"""From a text to the inputs of a file: ids, mask and types, what is cut off and what is filled up."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest

from fxpullback.contract.errors import InputError, SessionError
from fxpullback.contract.sizes import FreeAxis
from fxpullback.contract.tensor_input import TensorInput
from fxpullback.contract.text import Text
from fxpullback.export.text.tokenizer import Reader
from tests.export.text.tiny import VOCABULARY, taken, text, tokenizer

MASK_AND_TYPES = ("attention_mask", "token_type_ids")


def reader(*names: str, length: int | str = "tokens", sizes: tuple[FreeAxis, ...] = (), **options: object) -> Reader:
    ids = taken("input_ids", length=length)["input_ids"]
    return Reader(text(**options), ids, taken(*names, length=length), sizes)


def test_ids_mask_and_types_are_those_of_transformers() -> None:
    found = reader(*MASK_AND_TYPES)("The ferry was late.", "What a day!")
    wanted = tokenizer()("The ferry was late.", "What a day!")
    assert set(found.inputs) == {"input_ids", *MASK_AND_TYPES}
    for name, array in found.inputs.items():
        assert array.dtype == np.int64
        assert array.tolist() == [wanted[name]], name
    assert found.notes == ()


def test_only_what_the_file_takes_is_made() -> None:
    assert set(reader()("A day.").inputs) == {"input_ids"}
    assert set(reader("attention_mask")("A day.").inputs) == {"input_ids", "attention_mask"}


def test_inputs_have_the_types_of_the_file() -> None:
    mask = {"attention_mask": TensorInput("attention_mask", "float32", ("batch", "tokens"))}
    found = Reader(text(), TensorInput("input_ids", "int32", ("batch", "tokens")), mask)("A day.")
    assert found.inputs["input_ids"].dtype == np.int32
    assert found.inputs["attention_mask"].dtype == np.float32


def test_inputs_may_be_called_otherwise() -> None:
    ids, mask = TensorInput("words", "int64", ("batch", 9)), taken("there", length=9)
    found = Reader(text(mask="there"), ids, mask)("What a day.")
    assert list(found.inputs) == ["words", "there"]
    assert found.inputs["there"].tolist() == [[1] * 6 + [0] * 3]


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_fixed_length_is_filled_up_and_said(side: str) -> None:
    found = reader("attention_mask", length=10, side=side)("What a day!")
    ids, mask = found.inputs["input_ids"][0], found.inputs["attention_mask"][0]
    assert mask.tolist() == ([1] * 6 + [0] * 4 if side == "right" else [0] * 4 + [1] * 6)
    assert ids[found.place : found.place + 6].tolist() == tokenizer()("What a day!")["input_ids"]
    assert (ids[mask == 0] == 0).all()
    assert len(found.tokens) == 6
    assert "6 tokens and is filled up to 10" in found.notes[0]


@pytest.mark.parametrize(("length", "options"), [(8, {}), ("tokens", {"longest": 8})])
def test_a_long_text_is_cut_off_and_said(length: int | str, options: dict[str, Any]) -> None:
    found = reader("attention_mask", length=length, **options)("The ferry was late again, so we missed the second act.")
    assert found.length == 8
    assert [token.piece for token in found.tokens] == ["[CLS]", "the", "ferry", "was", "late", "again", ",", "[SEP]"]
    assert "15 tokens and the file takes 8: 7 are cut off" in found.notes[0]


def test_free_lengths_that_are_not_all_allowed_are_filled_up() -> None:
    axes = (FreeAxis(1, "tokens", 4, 12),)
    assert reader("attention_mask", sizes=axes)("A day.").length == 12
    assert reader("attention_mask", sizes=axes)("the ferry was late again , so we missed the act .").length == 16
    short = (FreeAxis(1, "tokens", 1, 2, 7),)
    assert reader("attention_mask", sizes=short)("the ferry was late again , so").length == 7


def test_filling_up_without_a_mask_is_refused() -> None:
    with pytest.raises(InputError, match=r"no attention_mask.*would count as text"):
        reader(length=10)("What a day!")
    assert reader(length=6)("What a day!").length == 6  # the advice, followed


def test_filling_up_without_a_padding_token_is_refused() -> None:
    with pytest.raises(InputError, match="no padding token"):
        reader("attention_mask", length=10, padding=None)("What a day!")


def test_inputs_that_no_text_gives_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="position_ids int64"):
        reader("position_ids")


@pytest.mark.parametrize("empty", ["", " \n", "\u200b"])
def test_a_text_without_tokens_is_refused(empty: str) -> None:
    with pytest.raises(InputError, match="pass some words"):
        reader()(empty)
    if not empty.strip():
        with pytest.raises(InputError, match="empty"):
            reader()("A day.", empty)


def test_offsets_are_those_of_the_text_as_given() -> None:
    given = "The  ACTORS, Unable!"
    found = reader()(given)
    there = [given[token.start : token.end] for token in found.tokens if token.part is not None]
    assert there == ["The", "ACT", "OR", "S", ",", "Un", "able", "!"]
    assert found.tokens[2].piece == "act"
    assert found.tokens[0].part is None


def test_one_reader_may_cut_off_and_then_not() -> None:
    made = reader(longest=6)
    assert made("the ferry was late again").length == 6
    whole = made("a day")
    assert whole.length == 4
    assert whole.notes == ()


def test_text_metadata_survive_json() -> None:
    given = text(specials={"pad": "[PAD]"}, side="left", mask="there")
    assert Text.from_dict(json.loads(json.dumps(given.to_dict()))) == given
    assert Text.from_dict({"tokenizer": "{}"}) == Text("{}")
    with pytest.raises(ValueError, match="no tokenizer"):
        Text.from_dict({"longest": 3})
    with pytest.raises(ValueError, match="right or on the left"):
        Text("{}", side="middle")


def test_a_damaged_tokenizer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SessionError, match="cannot be read by the library tokenizers"):
        Reader(Text("{}"), taken("input_ids")["input_ids"], {})
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(SessionError, match=r"pip install 'fxpullback\[text\]'"):
        Reader(text(), taken("input_ids")["input_ids"], {})


def test_the_vocabulary_is_as_large_as_it_says() -> None:
    assert tokenizer().vocab_size == len(VOCABULARY)
