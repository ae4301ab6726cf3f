"""What a file says of the parts of its logits. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PARTS = "parts"
"""The name of the output, `[batch, 3]`."""

COLUMNS = ("input", "biases", "gates")
"""What its columns are: <input, pullback>; what constants add; what gates add whose soft form is not their value."""


@dataclass(frozen=True)
class Parts:
    """The parts that a file gives of what it explains: of a logit, or of a difference of two.

    Attributes:
        at: which input of the program they belong to: `input`, or `second pass` for double.
    """

    at: str = "input"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a file carries them."""
        return {"columns": list(COLUMNS), "at": self.at}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Parts:
        """Read back what `to_dict` wrote."""
        if tuple(data["columns"]) != COLUMNS:
            raise ValueError(f"its parts are {', '.join(data['columns'])}, where {', '.join(COLUMNS)} are known")
        return cls(str(data["at"]))

    def __str__(self) -> str:
        return f"{', '.join(COLUMNS)}{'' if self.at == 'input' else f', of the {self.at}'}"
