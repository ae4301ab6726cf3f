"""What a row is, and what makes rows and their input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.helpers import TOLERANCE

Make = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Row:
    """One use of one operator.

    Attributes:
        target: the operator the row is about.
        function: a function of a batch `[batch, *sizes]` that calls it.
        sizes: sizes of one sample.
        values: what makes the input of standard normal numbers, for operators of limited range or with kinks.
        note: added to the name where an operator has several rows.
        captured: whether the operator is there after capture; else it is a spelling that capture replaces, and the
            rule is called on tensors alone.
        tolerance: a looser one has its reason beside the row.
    """

    target: Any
    function: Make
    sizes: tuple[int, ...]
    values: Make = lambda z: z
    note: str = ""
    captured: bool = True
    tolerance: float = TOLERANCE

    @property
    def name(self) -> str:
        return str(self.target).removesuffix(".default") + (f"-{self.note}" if self.note else "")


def weighted(function: Callable[..., Any], *weights: Any) -> Make:
    """A function of the input alone; its weights are drawn once, outside the capture."""
    return lambda x: function(x, *weights)


def pointwise(target: Any, *arguments: Any, **options: Any) -> Row:
    return Row(target, lambda x: target(x, *arguments), (3, 7), **options)


def on(target: Any, sizes: tuple[int, ...], *arguments: Any, note: str = "", captured: bool = True) -> Row:
    return Row(target, lambda x: target(x, *arguments), sizes, note=note, captured=captured)


def positive(z: Tensor) -> Tensor:
    return z.abs() + 0.1


def wide(z: Tensor) -> Tensor:
    """Values on both sides of every kink, and on the kinks at 0, +-0.5, +-1, +-3 and 6."""
    flat = (z * 4).flatten()
    kinks = torch.tensor([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0, 6.0, 30.0, -30.0], dtype=z.dtype)
    flat[: len(kinks)] = kinks
    return flat.reshape(z.shape)


def ties(z: Tensor) -> Tensor:
    """Few values, so that many are equal."""
    return z.round()
