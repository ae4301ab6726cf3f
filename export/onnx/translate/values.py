"""Values, their sizes, and where a node stands in the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
import sympy
import torch
from torch.utils._sympy import functions

from fxpullback.contract.errors import ExportError
from fxpullback.graph.ir import place

Value: TypeAlias = ir.Value
Scalar: TypeAlias = int | float | bool
Dim: TypeAlias = int | sympy.Expr
"""A size: a number, or an expression over the free sizes of the graph's inputs."""

INT64 = ir.DataType.INT64
BOOL = ir.DataType.BOOL
FLOATS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16},
)
LAST = np.iinfo(np.int64).max
FIRST = np.iinfo(np.int64).min


def dim(size: int | torch.SymInt) -> Dim:
    """A size of a fake tensor as a number or an expression."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression) if expression.is_Integer else expression


def sizes(x: Value) -> tuple[Dim, ...]:
    """The sizes of a value that came from a node of the fx graph, or from `cast`, `reshape`, `transpose`."""
    found: tuple[Dim, ...] = x.meta["sizes"]
    return found


def product(dims: Sequence[Dim]) -> Dim:
    """How many positions there are in all."""
    total: Dim = 1
    for size in dims:
        total = total * size
    return total


def exact_share(dims: Sequence[Dim], parts: int) -> Dim:
    """The positions in one of `parts` equal parts."""
    total = product(dims)
    return total // parts if isinstance(total, int) else total / parts


def whole_ratio(size: Dim, part: Dim) -> int | None:
    """By how much `size` is larger than `part`, where that is one whole number for all sizes."""
    if isinstance(size, int) and isinstance(part, int):
        return size // part if size % part == 0 else None
    ratio = sympy.cancel(sympy.sympify(size) / part)
    return int(ratio) if ratio.is_Integer else None


def rank(x: Value) -> int:
    """The number of axes of a value whose sizes are known."""
    return len(sizes(x))


def axis_of(axis: int, rank: int) -> int:
    """A torch axis, counted from the front."""
    return axis % rank if rank else 0


def static(size: Dim, why: str, node: torch.fx.Node) -> int:
    """A size that must be a number; an `ExportError` that says why otherwise."""
    if isinstance(size, int):
        return size
    raise ExportError(
        f"{why} needs a fixed size and got {size}, at {place(node)}. "
        "Capture the model with that axis fixed (only the batch is meant to be free)."
    )


ARITHMETIC: dict[type, str] = {
    sympy.Add: "Add",
    sympy.Mul: "Mul",
    functions.FloorDiv: "Div",
    functions.CleanDiv: "Div",
    functions.PythonMod: "Mod",
    functions.Mod: "Mod",
    functions.Max: "Max",
    functions.Min: "Min",
}
"""The ONNX operator for each kind of size expression."""
