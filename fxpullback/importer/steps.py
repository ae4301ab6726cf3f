"""What is run of a file, in order."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from fxpullback.importer.numbers import Array
from fxpullback.importer.site import Node


@dataclass(frozen=True)
class Wanted:
    """An input of a file.

    Attributes:
        name: its name there.
        sizes: its axes, None for one that is free; None where the file does not say.
        dtype: its type.
    """

    name: str
    sizes: tuple[int | None, ...] | None
    dtype: torch.dtype

    def said(self) -> str:
        """`[batch, 3, ?, ?]`."""
        if self.sizes is None:
            return "of no shape that the file says"
        return f"[{', '.join(['batch', *('?' if size is None else str(size) for size in self.sizes[1:])])}]"


@dataclass(frozen=True)
class Step:
    """One node with the names of what it reads and makes.

    Attributes:
        node: the node as its operator sees it.
        inputs: names, empty for an input that is left out.
        outputs: names, empty for an output that nobody reads.
    """

    node: Node
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass
class Plan:
    """What is run, in order.

    Attributes:
        steps: the nodes whose values depend on the inputs.
        constants: arrays by name.
        dequantised: names of weights that are stored quantised.
    """

    steps: list[Step] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    dequantised: list[str] = field(default_factory=list)
