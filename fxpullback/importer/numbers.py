"""Numbers that are known while a file is imported: its shape arithmetic, which no graph is to hold.

A size may be free, so an array may hold torch's symbols beside whole numbers; numpy computes with both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
MOST = 4096
"""Entries of the largest constant whose values are looked at as numbers."""


@dataclass(frozen=True, eq=False)
class Known:
    """An array of numbers, known or of free sizes.

    Attributes:
        array: the numbers, of any rank.
        floats: whether they are floating-point numbers in the file.
    """

    array: Array
    floats: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.array, np.ndarray):  # numpy gives the one entry of an array of symbols as it is
            alone = np.empty((), object)
            alone[()] = self.array
            object.__setattr__(self, "array", tidy(alone))

    def tensor(self) -> Tensor:
        """The same as a tensor."""
        if self.array.dtype != object:
            plain = torch.from_numpy(np.array(self.array))
            return plain.float() if plain.dtype is torch.float64 else plain
        entries = [torch.as_tensor(_plain(entry)) for entry in self.array.reshape(-1)]
        kind = torch.float32 if self.floats else torch.int64
        made = [entry.to(kind) for entry in entries]
        return torch.stack(made).reshape(self.array.shape) if made else torch.zeros(self.array.shape, dtype=kind)


def known(entries: Sequence[Any], *, floats: bool = False) -> Known:
    """A row of numbers, some of them free sizes."""
    if all(isinstance(entry, int) for entry in entries):
        return Known(np.array(entries, np.int64), floats)
    array = np.empty(len(entries), object)
    array[:] = list(entries)
    return Known(array, floats)


def listed(array: Array) -> list[Any]:
    """The entries of an array as numbers of Python, or as free sizes."""
    return [_plain(entry) for entry in array.reshape(-1)]


def same(a: Any, b: Any) -> bool:
    """Whether two sizes are the same number, or the same free size; nothing is asked of what is free."""
    if isinstance(a, torch.SymInt) or isinstance(b, torch.SymInt):
        return isinstance(a, torch.SymInt) and isinstance(b, torch.SymInt) and bool(a.node.expr == b.node.expr)
    return bool(a == b)


def _plain(entry: Any) -> Any:
    return entry.item() if isinstance(entry, np.generic) else entry


def _whole(entry: Any) -> Any:
    if isinstance(entry, torch.SymFloat | torch.SymInt):
        return torch.sym_int(entry)
    return int(entry)


def _each(function: Callable[..., Any]) -> Callable[..., Array]:
    """A function of numbers for arrays of them, result of type object where a symbol is among them."""

    def run(*arrays: Array) -> Array:
        wide = np.broadcast_arrays(*(array.astype(object) for array in arrays))
        entries = zip(*(array.reshape(-1) for array in wide), strict=True)
        made = [function(*map(_plain, given)) for given in entries]
        result = np.empty(len(made), object)
        result[:] = made
        return tidy(result.reshape(wide[0].shape))

    return run


def tidy(array: Array) -> Array:
    """An array of plain numbers in numpy's own type."""
    entries = [_plain(entry) for entry in array.reshape(-1)]
    if all(isinstance(entry, bool) for entry in entries):
        return array.astype(np.bool_)
    if all(isinstance(entry, int) for entry in entries):
        return array.astype(np.int64)
    if all(isinstance(entry, int | float) for entry in entries):
        return array.astype(np.float64)
    return array


def _divided(a: Any, b: Any) -> Any:
    """A quotient of whole numbers is whole, towards zero."""
    if isinstance(a, float | torch.SymFloat) or isinstance(b, float | torch.SymFloat):
        return a / b
    quotient = a // b
    if isinstance(a, int) and isinstance(b, int) and quotient < 0 and quotient * b != a:
        return quotient + 1
    return quotient


def _choice(condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


def _floor(entry: Any) -> Any:
    return torch.sym_float(torch.sym_int(entry)) if isinstance(entry, torch.SymFloat) else float(math.floor(entry))


def _ceil(entry: Any) -> Any:
    if isinstance(entry, torch.SymFloat):
        return -torch.sym_float(torch.sym_int(-entry))
    return float(math.ceil(entry))


ARITHMETIC: dict[str, Callable[..., Array]] = {
    "Add": _each(lambda a, b: a + b),
    "Sub": _each(lambda a, b: a - b),
    "Mul": _each(lambda a, b: a * b),
    "Div": _each(_divided),
    "Mod": _each(lambda a, b: a % b),
    "Min": _each(lambda *given: _least(given, -1)),
    "Max": _each(lambda *given: _least(given, 1)),
    "Neg": _each(lambda a: -a),
    "Abs": _each(lambda a: abs(a)),
    "Floor": _each(_floor),
    "Ceil": _each(_ceil),
    "Sqrt": _each(math.sqrt),
    "Equal": _each(lambda a, b: bool(a == b)),
    "Less": _each(lambda a, b: bool(a < b)),
    "LessOrEqual": _each(lambda a, b: bool(a <= b)),
    "Greater": _each(lambda a, b: bool(a > b)),
    "GreaterOrEqual": _each(lambda a, b: bool(a >= b)),
    "Not": _each(lambda a: not a),
    "And": _each(lambda a, b: bool(a and b)),
    "Or": _each(lambda a, b: bool(a or b)),
    "Where": _each(_choice),
}
"""Operators that are computed at once where all their arguments are known."""


def _least(given: Sequence[Any], sign: int) -> Any:
    chosen = given[0]
    for entry in given[1:]:
        chosen = torch.sym_max(chosen, entry) if sign > 0 else torch.sym_min(chosen, entry)
    return chosen


def as_whole(array: Array) -> Array:
    """Numbers cut to whole ones."""
    return _each(_whole)(array) if array.size else array.astype(np.int64)


def as_floats(array: Array) -> Array:
    """Numbers as floating-point ones."""
    return _each(lambda a: torch.sym_float(a) if isinstance(a, torch.SymInt) else float(a))(array)
