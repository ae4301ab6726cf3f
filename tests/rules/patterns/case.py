"""A gate written as several operators, and the same with `detach` where the rule has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Model = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Case:
    """A function that holds gates written out.

    Attributes:
        name: what it is.
        rule: the pattern rule that has to take it.
        model: the function.
        oracle: (input, temperature) -> the function with `detach` in it; its autograd is the soft pullback.
        sizes: sizes of one sample.
        temperatures: for rules that have one.
        gates: how many gates the rule takes.
    """

    name: str
    rule: str
    model: Model
    oracle: Callable[[Tensor, float], Any]
    sizes: tuple[int, ...]
    temperatures: tuple[float, ...] = (1.0,)
    gates: int = 1


def sg(x: Tensor) -> Tensor:
    return x.detach()


def injected(primal: Tensor, soft: Tensor) -> Tensor:
    return sg(primal) + soft - sg(soft)
