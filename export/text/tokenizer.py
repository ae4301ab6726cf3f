"""From a text to the inputs of a file, by the tokenizer that the file carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fxpullback.contract.errors import InputError, SessionError
from fxpullback.contract.sizes import FreeAxis
from fxpullback.contract.tensor_input import TensorInput
from fxpullback.contract.text import Text

if TYPE_CHECKING:
    from fxpullback.export.runtime.session import Session

INSTALL = "pip install 'fxpullback[text]'"


@dataclass(frozen=True)
class Token:
    """One token of a text.

    Attributes:
        piece: What the vocabulary calls it, such as `##ing`.
        start: Where it begins in its text, in characters.
        end: Where it ends.
        part: 0 for the text, 1 for the second of a pair, None for what the tokenizer added.
        group: Which of the pieces that the tokenizer splits a text into it belongs to; None for what it added.
    """

    piece: str
    start: int
    end: int
    part: int | None
    group: int | None


@dataclass(frozen=True)
class Tokens:
    """A text as a file takes it.

    Attributes:
        texts: The text, or the two of a pair.
        tokens: The tokens that stand for it, special ones included and padding left out.
        place: Where the first of them stands in the inputs; not 0 where a text is filled up on the left.
        inputs: The inputs of the file by name, `[1, length]` each, the explained one among them.
        notes: What was cut off or filled up, in words.
    """

    texts: tuple[str, ...]
    tokens: tuple[Token, ...]
    place: int
    inputs: Mapping[str, npt.NDArray[Any]]
    notes: tuple[str, ...] = ()

    @property
    def length(self) -> int:
        """Tokens of the inputs, padding included."""
        return int(next(iter(self.inputs.values())).shape[1])


class Reader:
    """Makes the inputs of a file from texts.

    Args:
        text: The tokenizer of the file.
        explained: Name of the input that takes the ids.
        inputs: Every other input that is a text's, by name: the mask and the types, where the file takes them.
        length: Tokens the file is fixed to, or None.
        sizes: The axes of the ids beside the batch whose size is free.

    Attributes:
        tokenizer: The tokenizer, as the library reads it.

    Raises:
        SessionError: The library `tokenizers` is absent, or cannot read the tokenizer of the file.
        InputError: The file takes an input that no text gives.
    """

    def __init__(
        self,
        text: Text,
        explained: TensorInput,
        inputs: Mapping[str, TensorInput],
        sizes: Sequence[FreeAxis] = (),
    ) -> None:
        foreign = [str(value) for name, value in inputs.items() if name not in (text.mask, text.types)]
        if foreign:
            raise InputError(
                f"besides the tokens the file takes {'; '.join(foreign)}, which no text gives. Call it from Python: "
                "fxpullback.export.Session."
            )
        self._text, self._explained, self._inputs = text, explained, inputs
        length = explained.shape[1]
        self._fixed = length if isinstance(length, int) else None
        self._axis = next((axis for axis in sizes if axis.axis == 1), None)
        self._most = min((n for n in (self._fixed, text.longest, self._axis and self._axis.most) if n), default=None)
        self.tokenizer = self._cut = tokenizer_of(text)
        self.tokenizer.no_truncation()
        if self._most is not None:  # one of its own, since a tokenizer that is changed may not be shared by threads
            self._cut = tokenizer_of(text)
            self._cut.enable_truncation(self._most)

    @classmethod
    def of(cls, session: Session, besides: Sequence[str] = (), ids: str | None = None) -> Reader:
        """Of a file.

        Args:
            session: The file.
            besides: Names of inputs that are made elsewhere.
            ids: Name of the input that takes the ids; None for the one that is explained.

        Raises:
            InputError: The file takes no text, or more than a text gives.
            SessionError: As above.
        """
        text = session.metadata.text
        if text is None:
            takes_ids = any(vocabulary is not None for vocabulary in session.metadata.explains.values())
            why = "holds no tokenizer" if takes_ids else "takes no words"
            raise InputError(
                f"{session.path}: no text can be explained, as the file {why}. Compile a model of text with its "
                "tokenizer: fxpullback compile hf:FOLDER, or to_onnx(..., text=...)."
            )
        ids = session.metadata.explained if ids is None else ids
        others = {name: taken for name, taken in session.inputs.items() if name not in (*besides, ids, "target")}
        return cls(text, session.inputs[ids], others, session.sizes)

    def __call__(self, text: str, pair: str | None = None) -> Tokens:
        """The tokens of a text, or of a pair of texts.

        Raises:
            InputError: A text without tokens, or one that must be filled up where the file has no way to say so.
        """
        texts = (text,) if pair is None else (text, pair)
        for given in texts:
            if not given.strip():
                raise InputError("the text is empty; pass some words.")
        encoding = self.tokenizer.encode(*texts)
        notes = []
        if self._most is not None and len(encoding) > self._most:
            notes.append(
                f"the text has {len(encoding)} tokens and the file takes {self._most}: "
                f"{len(encoding) - self._most} are cut off at the end"
                + ("" if pair is None else ", of the longer text first")
            )
            encoding = self._cut.encode(*texts)
        tokens = tuple(
            Token(piece, start, end, part, group)
            for piece, (start, end), part, group in zip(
                encoding.tokens, encoding.offsets, encoding.sequence_ids, encoding.word_ids, strict=True
            )
        )
        if all(token.part is None for token in tokens):
            raise InputError(f"{text!r}: the tokenizer finds no token in it; pass some words.")
        length = self._length(len(tokens))
        if length > len(tokens):
            notes.append(f"the text has {len(tokens)} tokens and is filled up to {length}")
        place = length - len(tokens) if self._text.side == "left" else 0
        return Tokens(texts, tokens, place, self._arrays(encoding, length, place), tuple(notes))

    def _length(self, count: int) -> int:
        """The length that a text of so many tokens is filled up to."""
        if self._fixed is not None:
            return self._fixed
        axis = self._axis
        if axis is None:
            return count
        length = max(count, axis.least)
        return length + -length % axis.multiple

    def _arrays(self, encoding: Any, length: int, place: int) -> dict[str, npt.NDArray[Any]]:
        """The inputs by name."""
        count = len(encoding)
        if length > count and self._text.mask not in self._inputs and not self._text.counts:
            raise InputError(
                f"the text has {count} tokens and the file takes {length}, and no {self._text.mask}: what it is filled "
                f"up with would count as text. Pass a text of {length} tokens, or compile the model with a free length "
                f"or with {self._text.mask} among its inputs."
            )
        if length > count and self._text.padding is None:
            raise InputError(
                f"the text has {count} tokens and the file takes {length}, and its tokenizer has no padding token. "
                f"Pass a text of {length} tokens, or compile the model with a free length."
            )
        rows = {
            self._explained.name: (encoding.ids, self._text.padding or 0),
            self._text.mask: ([1] * count, 0),
            self._text.types: (encoding.type_ids, 0),
        }
        found = {}
        for name, (values, filling) in rows.items():
            if name == self._explained.name or name in self._inputs:
                taken = self._explained if name == self._explained.name else self._inputs[name]
                row = np.full((1, length), filling, dtype=taken.dtype)
                row[0, place : place + count] = values
                found[name] = row
        return found


def tokenizer_of(text: Text) -> Any:
    """The tokenizer, as the library reads it, without padding.

    Raises:
        SessionError: The library is absent, or cannot read it.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise SessionError(f"a text is read by the library tokenizers, which is not installed: {INSTALL}.") from error
    try:
        tokenizer = Tokenizer.from_str(text.tokenizer)
    except Exception as error:  # the library raises Exception itself
        raise SessionError(
            f"the tokenizer of the file cannot be read by the library tokenizers ({error}). Compile the model again, "
            "with the version that is installed here."
        ) from error
    tokenizer.no_padding()
    return tokenizer
