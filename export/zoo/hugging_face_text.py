"""Models of text from a folder of transformers: tokens in, logits of a text or of each token out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from fxpullback.contract.errors import ModelSourceError
from fxpullback.contract.text import Text
from fxpullback.export.zoo.hubs import Source
from fxpullback.export.zoo.hugging_face_folder import check_head, classes_of, logits_of, outputs, parameters, quiet
from fxpullback.export.zoo.hugging_face_tokenizer import SENTENCES, check_alike, load_tokenizer, text_of, with_padding

_OF_TEXT = ("input_ids", "attention_mask", "token_type_ids")
_ADVICE = (
    "Compile it from Python, wrapped in a module that passes the rest: "
    "fxpullback.compile(model, {'input_ids': ids}, at='embeddings')."
)


def of_text(spec: str, folder: Path, model: Any, transformers: Any, length: int | None) -> Source:
    """The model of a folder, with its tokenizer and with examples in tokens.

    Args:
        spec: What the user called it.
        folder: The folder, which holds a tokenizer.
        model: The model.
        transformers: The library.
        length: Tokens the examples are filled up to; None for the length of the longer one.

    Raises:
        ModelSourceError: The model has no head, or the tokenizer is absent or of another model.
    """
    check_head(spec, type(model), "ForSequenceClassification")
    text, tokenizer, notes = tokenizer_and_text(spec, folder, model, transformers)
    check_length(spec, text, length)
    examples = tokens_of(spec, model, tokenizer, text, length)
    logits = logits_of(outputs(spec, model, examples, _ADVICE))
    return Source(
        model,
        tuple(examples["input_ids"].shape[1:]),
        None,
        classes=classes_of(model, logits, -1),
        notes=tuple(notes),
        examples=tuple(examples.values()),
        names=tuple(examples),
        text=text,
        explains={} if logits is None else {"output": "logits"} | ({"positions": "index"} if logits.ndim == 3 else {}),
    )


def tokenizer_and_text(spec: str, folder: Path, model: Any, transformers: Any) -> tuple[Text, Any, list[str]]:
    """What a file carries of the folder's tokenizer, the tokenizer itself, and what is to be said of it."""
    with quiet(transformers):
        tokenizer = load_tokenizer(spec, folder, transformers)
    notes = with_padding(spec, model, tokenizer)
    text = text_of(tokenizer, model)
    check_alike(spec, tokenizer, text)
    return text, tokenizer, notes


def check_length(spec: str, text: Text, length: int | None) -> None:
    """Refuse more tokens than the model takes."""
    if length is not None and text.longest is not None and length > text.longest:
        raise ModelSourceError(f"{spec}: --length {length} is more than the {text.longest} tokens the model takes.")


def tokens_of(spec: str, model: Any, tokenizer: Any, text: Text, length: int | None) -> dict[str, Tensor]:
    """Two texts as the model takes them, by the names of its forward."""
    most = text.longest if length is None else length
    options: dict[str, Any] = {} if most is None else {"truncation": True, "max_length": most}
    taken = parameters(type(model))
    made = tokenizer(
        list(SENTENCES), padding="longest" if length is None else "max_length", return_tensors="pt", **options
    )
    found = {name: made[name] for name in _OF_TEXT if name in made and name in taken}
    rows = _embeddings(model).weight.shape[0]
    if int(found["input_ids"].max()) >= rows:
        raise ModelSourceError(
            f"{spec}: the tokenizer gives ids up to {int(found['input_ids'].max())}, and the model has {rows} "
            "embeddings: they do not belong together. Fetch the folder again."
        )
    return found


def _embeddings(model: Any) -> Any:
    """What ids are looked up in; of a model that takes pictures besides, that of its texts."""
    return getattr(model, "text_model", model).get_input_embeddings()
