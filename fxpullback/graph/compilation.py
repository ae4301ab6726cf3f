"""What the stages of one compilation share while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from fxpullback.contract.sizes import FreeAxis
from fxpullback.graph.entry import Entry
from fxpullback.graph.operators import OPERATORS, OperatorTable


class SizeWatch(Protocol):
    """Sees to it that no stage decides anything that holds for some of the free sizes only."""

    free: tuple[FreeAxis, ...]

    def check(self, place: str) -> None:
        """Check what was decided since the last time; `place` is for the error."""


@dataclass
class Compilation:
    """What every `Builder` of one compilation is given.

    Attributes:
        names: names of the constants made so far; no stage uses one again.
        counts: how many names were tried so far that begin alike.
        shapes: fake results, by operator and the shapes of its arguments.
        operators: what is true of every operator.
        watch: what checks assumptions about free sizes; None where the batch alone is free.
        notes: what a reader of the ledger is to know of the model as a whole.
        entry: what stands in front of the explained input; None where the model takes that itself.
        beside: whether the pullback is put beside the model's own file, and shares its weights and values as they are.
    """

    names: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    shapes: dict[Any, Any] = field(default_factory=dict)
    operators: OperatorTable = OPERATORS
    watch: SizeWatch | None = None
    entry: Entry | None = None
    beside: bool = False
    notes: list[str] = field(default_factory=list)
