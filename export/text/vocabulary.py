"""Tokens as classes: a language model has a logit for every token of its vocabulary."""

from __future__ import annotations

from typing import Any

from fxpullback.contract.errors import ModelSourceError

SPACES = ("\u0120", "\u2581")
"""What stands for the space before a word, in tokens made of bytes and in those of sentence pieces."""


def token_index(wanted: str, tokenizer: Any, count: int) -> int:
    """The id of the token that `wanted` names: itself, with a space before it, or an id.

    Args:
        wanted: A token, a word that is one token, or an id.
        tokenizer: The tokenizer of the file.
        count: How many logits there are.

    Raises:
        ModelSourceError: There is no such token, or the model has no logit for it.
    """
    spelled = [wanted, *(space + wanted.lstrip() for space in SPACES)]
    if wanted.startswith(" "):  # the word with a space before it is meant, and not the piece inside a word
        spelled = spelled[1:]
    found = [tokenizer.token_to_id(name) for name in spelled]
    known = [index for index in found if index is not None and index < count]
    if known:
        return int(known[0])
    if wanted.isdecimal() and int(wanted) < count:
        return int(wanted)
    pieces = tokenizer.encode(wanted, add_special_tokens=False).tokens
    raise ModelSourceError(
        f"token {wanted!r}: the vocabulary has no such token"
        + (f"; it is made of {', '.join(pieces)}" if pieces else "")
        + f". Pass a token, or an id from 0 to {count - 1}."
    )


def token_name(index: int, tokenizer: Any) -> str:
    """What a token is called in print: as it is read, and its id."""
    name = tokenizer.id_to_token(index)
    if name is None:
        return f"token {index}"
    for space in SPACES:
        name = name.replace(space, " ")
    return f"{name!r} ({index})"
