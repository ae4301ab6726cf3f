"""What a file says of the parts of its logits. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PARTS = "parts"
"""The name of the output, `[batch, 3]`."""

PUSHED = "bias_contribution"
"""The name of the output that holds biases where they act, `[batch, *grid]`."""

COLUMNS = ("input", "biases", "gates")
"""What its columns are: <input, pullback>; what constants add; what gates add whose soft form is not their value."""


@dataclass(frozen=True)
class Parts:
    """The parts that a file gives of what it explains: of a logit, or of a difference of two.

    Attributes:
        at: which input of the program they belong to: `input`, or `second pass` for double.
        pushed: extents of the grid on which biases are given where they act; none where they are given as a number.
    """

    at: str = "input"
    pushed: tuple[int, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs, in order."""
        return (PUSHED, PARTS) if self.pushed else (PARTS,)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a file carries them."""
        return {"columns": list(COLUMNS), "at": self.at, "pushed": list(self.pushed)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Parts:
        """Read back what `to_dict` wrote."""
        if tuple(data["columns"]) != COLUMNS:
            raise ValueError(f"its parts are {', '.join(data['columns'])}, where {', '.join(COLUMNS)} are known")
        return cls(str(data["at"]), tuple(map(int, data.get("pushed", ()))))

    def __str__(self) -> str:
        pushed = f"; biases where they act, {'x'.join(map(str, self.pushed))}" if self.pushed else ""
        return f"{', '.join(COLUMNS)}{'' if self.at == 'input' else f', of the {self.at}'}{pushed}"
