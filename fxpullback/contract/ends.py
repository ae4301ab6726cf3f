"""What of a model is explained: where explanation ends on its way back, and where it begins. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fxpullback.contract.errors import CaptureError, InputError

EMBEDDINGS = "embeddings"
PLACES = (EMBEDDINGS,)
"""Where a model may be explained, beside its input."""

POSITIONS = "positions"
"""The input that says at which positions the logits are explained."""

INDEX, MASK, WEIGHTS = "index", "mask", "weights"
KINDS = (INDEX, MASK, WEIGHTS)
"""What that input may hold."""


@dataclass(frozen=True)
class Ends:
    """What of a model is explained.

    Attributes:
        at: `embeddings` where its first input holds ids and what they are looked up as is explained; None for the
            input itself.
        output: which of its outputs holds the logits, by name or place; None where there is but one.
        positions: what a further input `positions` holds, of a model with logits at many positions: `index` for one
            position of each sample, `mask` for the mean over some, `weights` for a weighted sum. None where the
            logits are `[batch, classes]`.
        explain: the inputs that are explained together, by name; none where it is the first alone.
        extents: how many positions there are along each of their axes: a number, or the name of a free axis of the
            input; None where it is neither.
    """

    at: str | None = None
    output: str | int | None = None
    positions: str | None = None
    extents: tuple[int | str | None, ...] = ()
    explain: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.at is not None and self.at not in PLACES:
            raise CaptureError(f"at is {self.at!r}; leave it out, or pass one of {', '.join(map(repr, PLACES))}.")
        if self.positions is not None and self.positions not in KINDS:
            kinds = ", ".join(map(repr, KINDS))
            raise CaptureError(f"positions is {self.positions!r}; leave it out, or pass one of {kinds}.")
        if len(set(self.explain)) < len(self.explain):
            raise CaptureError(f"explain={self.explain}: name each input that is explained once.")
        if self.output is not None and (isinstance(self.output, bool) or not isinstance(self.output, str | int)):
            raise CaptureError(f"output is {self.output!r}; pass the name of an output, or its place, from 0.")

    def check(self, given: Any, sizes: Mapping[str, int]) -> None:
        """Refuse positions that there are not, and a mask that names none.

        Args:
            given: the input `positions`, of the right shape and type; an array or a tensor.
            sizes: the free sizes of the input by name.

        Raises:
            InputError: says which sample is wrong.
        """
        if self.positions == MASK:
            empty = [i for i, sample in enumerate(given) if not bool(sample.any())]
            if empty:
                raise InputError(f"{POSITIONS}: the mask of sample {empty[0]} is False everywhere; name one position.")
        if self.positions != INDEX:
            return
        places = given if given.ndim > 1 else given[:, None]
        for axis, extent in enumerate(self.extents):
            count = sizes.get(extent) if isinstance(extent, str) else extent
            for i, place in enumerate(places[:, axis].tolist() if count is not None else ()):
                if not -count <= place < count:  # type: ignore[operator]  # None has no places
                    raise InputError(
                        f"{POSITIONS}: sample {i} asks for {place}, and there are {count} positions, 0 to "
                        f"{count - 1}, or -1 to -{count} from the end."  # type: ignore[operator]
                    )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a file carries them; what is not there is left out."""
        held = {"at": self.at, "output": self.output, "positions": self.positions, "extents": list(self.extents)}
        return {name: value for name, value in held.items() if value is not None and value != []}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Ends:
        """Read back what `to_dict` wrote."""
        return cls(data.get("at"), data.get("output"), data.get("positions"), tuple(data.get("extents", ())))
