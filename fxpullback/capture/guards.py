"""Guards: what torch takes for granted about dynamic sizes, evaluated over many sizes at once.

A guard is a sympy expression over the symbols that torch.export gives the sizes of an input.
"""

from __future__ import annotations

import functools
import operator
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sympy
import torch
from torch.utils._sympy import functions

from fxpullback.contract.errors import CaptureError
from fxpullback.contract.sizes import FreeAxis
from fxpullback.graph.expressions import computed

_OPERATIONS: dict[type[sympy.Basic], Callable[..., Any]] = {
    sympy.Add: operator.add,
    sympy.Mul: operator.mul,
    sympy.Pow: operator.pow,
    sympy.Max: np.maximum,
    sympy.Min: np.minimum,
    sympy.Mod: operator.mod,
    sympy.Equality: operator.eq,
    sympy.Unequality: operator.ne,
    sympy.StrictLessThan: operator.lt,
    sympy.LessThan: operator.le,
    sympy.StrictGreaterThan: operator.gt,
    sympy.GreaterThan: operator.ge,
    sympy.And: np.logical_and,
    sympy.Or: np.logical_or,
    sympy.Not: np.logical_not,
    functions.FloorDiv: operator.floordiv,
    functions.CleanDiv: operator.floordiv,
    functions.Mod: operator.mod,
    functions.PythonMod: operator.mod,
    functions.Max: np.maximum,
    functions.Min: np.minimum,
    functions.IntTrueDiv: operator.truediv,
    functions.FloatTrueDiv: operator.truediv,
    functions.ToFloat: lambda a: a * 1.0,
    functions.TruncToInt: np.trunc,
    functions.FloorToInt: np.floor,
    functions.CeilToInt: np.ceil,
    functions.RoundToInt: np.round,
    functions.Identity: lambda a: a,
}


def evaluate(expression: sympy.Basic, sizes: Mapping[sympy.Basic, Any]) -> Any:
    """The value of an expression over sizes, for arrays of them."""

    def combine(expression: sympy.Basic, values: list[Any]) -> Any:
        operation = _OPERATIONS.get(type(expression))
        if operation is None:
            raise CaptureError(f"free_size: the size expression {expression} cannot be followed. Compile for one size.")
        return functools.reduce(operation, values) if len(values) > 1 else operation(*values)

    with np.errstate(all="ignore"):
        return computed(expression, sizes, combine)


def holds(guard: sympy.Basic, sizes: Mapping[sympy.Basic, Any]) -> Any:
    """Where a guard holds."""
    return np.asarray(evaluate(guard, sizes)).astype(bool)


def guards_of(environment: Any, symbols: set[sympy.Symbol], first: int = 0) -> list[sympy.Basic]:
    """What a capture took for granted about these sizes, from its guard number `first` on.

    A size that was found to be another one, as that of a mask to be that of its ids, stands under the other's symbol.
    """
    known = dict(environment.replacements)
    found = dict.fromkeys(guard.expr.xreplace(known) for guard in environment.guards[first:])
    return [guard for guard in found if guard.free_symbols and guard.free_symbols <= symbols]


def symbol_of(size: Any) -> tuple[Any, int]:
    """The symbol of a dynamic size, and the multiple of it that the size is; no symbol where it is fixed."""
    expression = size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)
    if len(expression.free_symbols) != 1:
        return None, 1
    (symbol,) = expression.free_symbols
    ratio = expression / symbol
    return (symbol, int(ratio)) if ratio.is_Integer else (None, 1)


def many_values(axis: FreeAxis, unit: int) -> Any:
    """Many values of an axis' symbol at which its size is allowed, most of them small; `unit` is as in `symbol_of`."""
    most = ((axis.most or axis.least + (1 << 14)) - axis.least) // axis.multiple
    draw = random.Random(axis.axis)
    steps = np.array([draw.randint(0, most if i % 3 == 0 else min(most, 40)) for i in range(4096)])
    return (axis.least + axis.multiple * steps) // unit
