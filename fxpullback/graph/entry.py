"""What stands in front of a graph whose explained input is no input of the model: ids, or several inputs together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fxpullback.contract.errors import InputError
from fxpullback.contract.names import OF_INPUT, own_output


@dataclass(frozen=True, eq=False)
class Part:
    """One of the inputs that are explained.

    Attributes:
        name: name of the input.
        tables: the tables its ids are looked up in, by the names of the constants that hold them, `[ids, dim]` each;
            none where the input is explained itself. What several tables give for one id is put together along the
            last axis.
        sample: the shape of one sample of what is explained; -1 where a size is free.
    """

    name: str
    tables: Mapping[str, Tensor]
    sample: tuple[int, ...]

    @property
    def vocabulary(self) -> int | None:
        """How many ids there are, 0 to one less; None where the input is explained itself."""
        return min((int(table.shape[0]) for table in self.tables.values()), default=None)

    def value(self, given: Tensor) -> Tensor:
        """What is explained, of what is passed: the ids `[batch, tokens]` as `[batch, tokens, dim]`."""
        found = [table.detach()[given.long()] for table in self.tables.values()] or [given]
        return found[0] if len(found) == 1 else torch.cat(found, -1)

    def check(self, given: Tensor) -> None:
        """Refuse ids that stand in no row of the table, and values that are not finite."""
        if self.vocabulary is None:
            if not bool(torch.isfinite(given).all()):
                raise InputError(f"{self.name} holds NaN or infinite values.")
            return
        low, high = int(given.min()), int(given.max())
        if low < 0 or high >= self.vocabulary:
            raise InputError(
                f"{self.name}: there is no id {low if low < 0 else high}; the table has {self.vocabulary} rows, 0 to "
                f"{self.vocabulary - 1}. Was the text made into ids by the tokenizer of this model?"
            )


@dataclass(frozen=True, eq=False)
class Entry:
    """What stands in front of the explained input of a graph.

    The inputs of the parts are the first extras of the graph. With one part its value is the explained input; of
    several the values are laid side by side, flat, so that one cotangent explains all of them.

    Attributes:
        parts: the inputs that are explained, in order.
    """

    parts: tuple[Part, ...]

    @property
    def is_joined(self) -> bool:
        """Whether the explained input is several values side by side."""
        return len(self.parts) > 1

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs that are explained."""
        return tuple(part.name for part in self.parts)

    def value(self, given: Sequence[Tensor]) -> Tensor:
        """The explained input of the graph, of what is passed for the parts."""
        values = [part.value(one) for part, one in zip(self.parts, given, strict=False)]
        return torch.cat([value.flatten(1) for value in values], 1) if self.is_joined else values[0]

    def outputs(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of a graph by name, those of the explained input taken apart."""
        if not self.is_joined:
            return dict(results)
        found: dict[str, Any] = {}
        for name, result in results.items():
            if name in OF_INPUT:
                found |= {
                    own_output(name, part.name): piece
                    for part, piece in zip(self.parts, self.apart(result), strict=True)
                }
            else:
                found[name] = result
        return found

    def apart(self, joined: Any) -> list[Any]:
        """The values of the parts, of what they are side by side."""
        if not self.is_joined:
            return [joined]
        widths = [math.prod(part.sample) for part in self.parts]
        starts = [sum(widths[:i]) for i in range(len(widths))]
        return [
            joined[:, start : start + width].reshape([-1, *part.sample])
            for part, start, width in zip(self.parts, starts, widths, strict=True)
        ]
