"""The tokenizer of a folder of Hugging Face transformers, as a file carries it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from fxpullback.contract.errors import ModelSourceError
from fxpullback.contract.text import Text
from fxpullback.export.text.tokenizer import tokenizer_of

SENTENCES = (
    "The ferry was late again, so we missed the second act and walked home in the rain.",
    "What a day.",
)
"""Texts that a model is compiled with: of different length, so that the shorter one is filled up and masked."""
_HUGE = 1 << 30


def text_of(tokenizer: Any, model: nn.Module | None = None) -> Text:
    """What a file carries of a tokenizer of transformers.

    Args:
        tokenizer: A fast tokenizer, as `AutoTokenizer.from_pretrained` returns it.
        model: The model it belongs to, which may take fewer positions than the tokenizer says.

    Raises:
        ModelSourceError: The tokenizer is written in Python and has no `tokenizer.json`.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelSourceError(
            f"{type(tokenizer).__name__}: the tokenizer is written in Python and has no tokenizer.json, so no file can "
            "carry it. Compile with to_onnx(...) without text, and pass ids to Session."
        )
    content = json.loads(backend.to_str())
    content["truncation"] = content["padding"] = None
    given = int(tokenizer.model_max_length)
    bounds = [n for n in (given if given < _HUGE else None, None if model is None else positions(model)) if n]
    specials = {
        use.removesuffix("_token"): str(token)
        for use, token in tokenizer.special_tokens_map.items()
        if isinstance(token, str) and use.endswith("_token")
    }
    return Text(
        json.dumps(content, ensure_ascii=False),
        longest=min(bounds, default=None),
        padding=tokenizer.pad_token_id,
        side=tokenizer.padding_side,
        specials=specials,
    )


def positions(model: nn.Module) -> int | None:
    """How many tokens the position embeddings of a model allow; None where nothing says so.

    Tables with a padding row count positions from behind it, so that many rows less are of use.
    """
    most = getattr(of_text(getattr(model, "config", None)), "max_position_embeddings", None)
    if not isinstance(most, int) or most < 1:
        return None
    rows = [
        table.padding_idx + 1
        for name, table in model.named_modules()
        if isinstance(table, nn.Embedding) and "position" in name and table.padding_idx is not None
    ]
    return most - max(rows, default=0)


def of_text(config: Any) -> Any:
    """The part of a configuration that is of texts: all of it, but for a model of pictures besides."""
    return getattr(config, "text_config", None) or config


def load_tokenizer(spec: str, folder: Path, transformers: Any) -> Any:
    """The tokenizer of the folder; transformers makes one up, which knows no word, where its files are missing."""
    try:
        found = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ModelSourceError(
            f"{spec}: no tokenizer can be loaded from the folder: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]} Save it there: tokenizer.save_pretrained({str(folder)!r})."
        ) from error
    files: dict[str, str] = dict(found.vocab_files_names)
    whole = files.pop("tokenizer_file", "tokenizer.json")
    absent = [name for name in files.values() if not (folder / name).is_file()] or ([] if files else [whole])
    if not (folder / whole).is_file() and absent:
        raise ModelSourceError(
            f"{spec}: the folder has no tokenizer: there is no {whole}"
            + (f", and no {', '.join(absent)}" if files else "")
            + f". Save it there: tokenizer.save_pretrained({str(folder)!r})."
        )
    return found


def check_alike(spec: str, tokenizer: Any, text: Text) -> None:
    """Refuse a tokenizer that does something which its `tokenizer.json` does not say."""
    carried = tokenizer_of(text)
    for given in (SENTENCES, *((sentence,) for sentence in SENTENCES)):
        own, found = tokenizer(*given)["input_ids"], carried.encode(*given).ids
        if own != found:
            raise ModelSourceError(
                f"{spec}: {type(tokenizer).__name__} makes {own} of {given}, and its tokenizer.json {found}, which is "
                "what a file carries. Compile with to_onnx(...) without text, and pass ids to Session."
            )


def with_padding(spec: str, model: Any, tokenizer: Any) -> list[str]:
    """Make sure that texts of different length can stand in one batch. Returns what is to be said."""
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise ModelSourceError(
                f"{spec}: the tokenizer has neither a padding token nor one for the end, so no two texts can stand in "
                "one batch. Name one: tokenizer.pad_token = ..., tokenizer.save_pretrained(FOLDER)."
            )
        tokenizer.pad_token = tokenizer.eos_token
        said = [f"the tokenizer has no padding token; {tokenizer.eos_token} is taken, hidden by the mask"]
    else:
        said = []
    config = of_text(model.config)
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id
        said.append(f"the model names no padding token; that of the tokenizer, {tokenizer.pad_token}, is taken")
    return said
