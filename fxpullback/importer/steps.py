"""What is run of a file, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.numbers import Array
from fxpullback.importer.site import Node

INSIDE = "inside the file: "
"""In front of the name of a value that an export says besides the outputs."""


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
        branches: of a branch on sizes: what is run where its first input holds, and where it does not.
        operator: what is run in place of the operator of that name.
        repeated: of a loop, what is run again and again; its outer values are the last of the inputs.
    """

    node: Node
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    branches: tuple[Branch, Branch] | None = None
    operator: Callable[..., Any] | None = None
    repeated: Branch | None = None


@dataclass(frozen=True)
class Branch:
    """One of the two graphs of a branch, or that of a loop.

    Attributes:
        plan: what is run.
        inputs: names of outer values that it reads.
        outputs: names of what it makes.
        unknown: operators that are not imported, and the names of their nodes.
        given: names of its own inputs.
    """

    plan: Plan
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    unknown: dict[str, list[str]]
    given: tuple[str, ...] = ()


@dataclass
class Plan:
    """What is run, in order.

    Attributes:
        steps: the nodes whose values depend on the inputs.
        constants: arrays by name.
        dequantised: names of weights that are stored quantised.
        notes: what is read in another way than it is written.
        ids: how many rows the smallest table has that the first input is looked up in; 0 where there is none.
    """

    steps: list[Step] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    dequantised: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ids: int = 0


def refuse(unknown: Mapping[str, Sequence[str]]) -> None:
    """Refuse operators that are not imported.

    Args:
        unknown: the names of their nodes by operator.

    Raises:
        CaptureError: there are any.
    """
    if unknown:
        listed = "; ".join(f"{kind} ({len(at)}, first at {at[0]!r})" for kind, at in unknown.items())
        raise CaptureError(
            f"operators that are not imported: {listed}. docs/onnx-models.md lists those that are. Cut the part "
            "with them off, output=NAME for a value in front of it, or compile the model that was exported."
        )
