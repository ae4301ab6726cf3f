"""Small models of text with random weights, and tokenizers made here, in folders as transformers writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from fxpullback.contract.tensor_input import TensorInput
from fxpullback.contract.text import Text

INPUTS = ("input_ids", "token_type_ids", "attention_mask")
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
ENGLISH = (
    "the ferry was late again so we missed second act and walked home in rain what a day good bad film never don "
    "##or ##s ##ed un ##able . , : ' ! ? - < > / & ( ) \""
)
WORDS = [*ENGLISH.split(), *LETTERS, *(f"##{letter}" for letter in LETTERS)]
VOCABULARY = {word: index for index, word in enumerate(dict.fromkeys([*SPECIALS, *WORDS]))}
LABELS = ("against", "for", "neither")


def tokenizer(**options: Any) -> Any:
    """Word pieces in lower case, `[CLS] text [SEP]` and `[CLS] text [SEP] second [SEP]`."""
    made = Tokenizer(WordPiece(VOCABULARY, unk_token="[UNK]"))
    made.normalizer = BertNormalizer(lowercase=True)
    made.pre_tokenizer = BertPreTokenizer()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, VOCABULARY[name]) for name in ("[CLS]", "[SEP]")],
    )
    names = ("pad", "unk", "cls", "sep", "mask")
    specials = {f"{name}_token": token for name, token in zip(names, SPECIALS, strict=True)}
    given: dict[str, Any] = {"model_max_length": 32, "model_input_names": list(INPUTS), **specials, **options}
    kind: Any = PreTrainedTokenizerFast  # its constructor has no annotations
    return kind(tokenizer_object=made, **given)


def text(**options: Any) -> Text:
    """What a file carries of it."""
    given: dict[str, Any] = {"longest": 32, "padding": 0, **options}
    return Text(tokenizer().backend_tokenizer.to_str(), **given)


def bert_config(**options: Any) -> BertConfig:
    sizes: dict[str, Any] = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 40,
        "id2label": dict(enumerate(LABELS)),
        "label2id": {name: index for index, name in enumerate(LABELS)},
        "initializer_range": 0.3,
    }
    return BertConfig(**(sizes | options))


def bert(folder: Path, **options: Any) -> Path:
    """A classifier of three classes, saved with its tokenizer."""
    torch.manual_seed(0)
    BertForSequenceClassification(bert_config(**options)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def taken(*names: str, length: int | str = "tokens") -> dict[str, TensorInput]:
    """Inputs of a file, `[batch, length]` of integers."""
    return {name: TensorInput(name, "int64", ("batch", length)) for name in names}
