"""How a text becomes the input of a file, as the file carries it. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

MASK, TYPES = "attention_mask", "token_type_ids"
SIDES = ("right", "left")


@dataclass(frozen=True)
class Text:
    """The tokenizer of a file.

    Attributes:
        tokenizer: The whole text of `tokenizer.json`, as the library `tokenizers` reads it; lower-casing and special
            tokens around a text are part of it.
        longest: The most tokens a text may have, special ones included; None for no bound.
        padding: Id of the token that fills up a text; None where there is none.
        side: Where a text is filled up, `right` or `left`.
        specials: Special tokens by what they are for, such as `{"pad": "[PAD]", "mask": "[MASK]"}`.
        mask: Name of the input that is 1 where there is text and 0 where it was filled up.
        types: Name of the input that says of each token which of two texts it belongs to.
        counts: Whether what a text is filled up with counts as text, as for a model that was trained so: it needs no
            mask.
    """

    tokenizer: str
    longest: int | None = None
    padding: int | None = None
    side: str = "right"
    specials: Mapping[str, str] = field(default_factory=dict)
    mask: str = MASK
    types: str = TYPES
    counts: bool = False

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise ValueError(f"a text is filled up on the right or on the left, and not on the {self.side!r}")
        if self.longest is not None and self.longest < 1:
            raise ValueError(f"a text of at most {self.longest} tokens holds nothing")

    def __str__(self) -> str:
        model = json.loads(self.tokenizer).get("model", {})
        bound = "" if self.longest is None else f" of at most {self.longest} tokens"
        padding = "not filled up" if self.padding is None else f"filled up with {self.padding} on the {self.side}"
        kind = f"{model.get('type', 'tokenizer')} of {len(model.get('vocab', ()))} tokens"
        return f"texts{bound}, by {kind}, {padding}"

    def filled_up(self) -> Text:
        """The same for a model that was trained on texts filled up to one length, without a mask."""
        return replace(self, counts=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a file carries them."""
        return asdict(self) | {"specials": dict(self.specials)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Text:
        """Read back what `to_dict` wrote.

        Raises:
            ValueError: The tokenizer is absent, or a value is not what is written there.
        """
        if not isinstance(data.get("tokenizer"), str):
            raise ValueError("its text metadata hold no tokenizer")
        longest, padding = data.get("longest"), data.get("padding")
        return cls(
            data["tokenizer"],
            None if longest is None else int(longest),
            None if padding is None else int(padding),
            str(data.get("side", "right")),
            {str(use): str(token) for use, token in dict(data.get("specials") or {}).items()},
            str(data.get("mask", MASK)),
            str(data.get("types", TYPES)),
            bool(data.get("counts", False)),
        )
