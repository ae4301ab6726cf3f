"""What a graph takes and returns, by name. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from fxpullback.contract.names import INPUT
from fxpullback.contract.sizes import FreeAxis


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a graph.

    Attributes:
        explained: the input that is explained. Cotangents reach it alone.
        extras: the inputs that are passed through, in order; constants to every rule.
        given: what follows the extras: `cotangent`, `target`, or None for nothing.
        outputs: the outputs, in order.
        free: the axes of the explained input, beside the batch, whose size is free.
    """

    explained: str = INPUT
    extras: tuple[str, ...] = ()
    given: str | None = None
    outputs: tuple[str, ...] = ("logits",)
    free: tuple[FreeAxis, ...] = ()
