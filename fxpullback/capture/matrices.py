"""Determinants, inverses, solutions and Cholesky factors of small matrices that depend on the input, written out.

ONNX has a determinant and nothing for its derivative. Elimination with the largest pivot of each column is arithmetic
and choices, so every stage has what it needs. What depends on weights alone stays, and is folded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from fxpullback.graph.ir import aten, needed_for
from fxpullback.graph.rebuild import Handler, Site
from fxpullback.graph.shapes import is_free, places

LARGEST = 32  # rows of a matrix; each is a step of some ten operators


def det(a: Any) -> tuple[Any, None, None]:
    """`aten._linalg_det` without the factors it also returns; up to three rows by minors, singular ones included."""
    if a.shape[-1] <= 3:
        return _by_minors(a), None, None
    rows, odd = _eliminated(a)
    made = torch.where(odd, -1.0, 1.0).to(a.dtype)
    for row in rows:
        made = made * _at(row, 0)
    return made, None, None


def slogdet(a: Any) -> tuple[Any, Any, None, None]:
    """`aten._linalg_slogdet`: the sign, and the logarithm of the size, without the factors."""
    rows, odd = _eliminated(a)
    sign, log = torch.where(odd, -1.0, 1.0).to(a.dtype), None
    for row in rows:
        pivot = _at(row, 0)
        sign = torch.where(pivot < 0, -sign, torch.where(pivot == 0, 0.0, sign))
        size = torch.log(torch.abs(pivot))
        log = size if log is None else log + size
    return sign, log, None, None


def solve(a: Any, b: Any, left: bool = True) -> Any:
    """`aten.linalg_solve`: x of `a x = b`, or of `x a = b`."""
    if b.ndim == 1 or (b.ndim == a.ndim - 1 and [*map(str, b.shape)] == [*map(str, a.shape[:-1])]):
        return _solved(a, b.unsqueeze(-1)).squeeze(-1)
    return _solved(a, b) if left else _solved(a.transpose(-2, -1), b.transpose(-2, -1)).transpose(-2, -1)


def inverse(a: Any) -> Any:
    """`aten.linalg_inv`."""
    return _solved(a, a.exact_constant(torch.eye(a.shape[-1], dtype=torch.float64)).expand(a.shape))


def cholesky(a: Any, upper: bool = False) -> Any:
    """`aten.linalg_cholesky`; the derivative is shared by both halves of the matrix, as in torch."""
    rest, columns, size = (a + a.transpose(-2, -1)) * 0.5, list[Any](), a.shape[-1]
    for step in range(size):
        root = torch.sqrt(_at(_at(rest, 0), 0).unsqueeze(-1))
        column = torch.cat([root, _from(aten.select.int(rest, -1, 0), 1) / root], -1) if step < size - 1 else root
        columns.append(aten.constant_pad_nd.default(column, [step, 0], 0.0))
        if step < size - 1:
            below = _from(column, 1)
            rest = _from(_from(rest, 1).transpose(-2, -1), 1) - below.unsqueeze(-1) * below.unsqueeze(-2)
    return torch.stack(columns, -2 if upper else -1)


def _at(x: Any, place: int) -> Any:
    """One entry of the last axis of a row, one row of a matrix."""
    return aten.select.int(x, -1, place)


def _from(x: Any, start: int) -> Any:
    return aten.slice.Tensor(x, -1, start)


def _by_minors(a: Any) -> Any:
    entry = [[_at(_at(a.transpose(-2, -1), i), j) for j in range(a.shape[-1])] for i in range(a.shape[-1])]
    if len(entry) == 1:
        return entry[0][0]
    if len(entry) == 2:
        return entry[0][0] * entry[1][1] - entry[0][1] * entry[1][0]
    made = None
    for j in range(3):
        k, n = (j + 1) % 3, (j + 2) % 3
        part = entry[0][j] * (entry[1][k] * entry[2][n] - entry[1][n] * entry[2][k])
        made = part if made is None else made + part
    return made


def _eliminated(a: Any) -> tuple[list[Any], Any]:
    """`[*, n, m]` by elimination: the rows, each from its pivot on, and whether an odd number of rows was swapped."""
    rows, odd, size = list[Any](), None, a.shape[-2]
    for left in range(size, 1, -1):
        column = aten.select.int(a, -1, 0)
        place = aten.argmax.default(torch.abs(column), -1, True)
        here = (places(left, a) == place).unsqueeze(-1)
        row = aten.sum.dim_IntList(torch.where(here, a, 0.0), [-2])
        first = aten.slice.Tensor(a, -2, 0, 1)
        rest = aten.slice.Tensor(torch.where(here, first, a), -2, 1)
        factor = aten.slice.Tensor(rest, -1, 0, 1) / aten.slice.Tensor(row, -1, 0, 1).unsqueeze(-2)
        a = _from(rest, 1) - factor * _from(row, 1).unsqueeze(-2)
        swapped = (place != 0).squeeze(-1)
        odd = swapped if odd is None else odd != swapped
        rows.append(row)
    last = aten.select.int(a, -2, 0)
    return [*rows, last], odd if odd is not None else aten.select.int(last, -1, 0) != aten.select.int(last, -1, 0)


def _solved(a: Any, b: Any) -> Any:
    """x of `a x = b`, both matrices."""
    size = a.shape[-1]
    lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    both = [m.expand([*lead, *m.shape[-2:]]) for m in (a, b)]
    rows, _ = _eliminated(torch.cat(both, -1))
    found = list[Any]()
    for step in range(size - 1, -1, -1):
        own = size - step  # entries of the matrix in this row, its pivot first
        left = _from(rows[step], own)
        for i, x in enumerate(found):
            left = left - aten.slice.Tensor(rows[step], -1, i + 1, i + 2) * x
        found.insert(0, left / aten.slice.Tensor(rows[step], -1, 0, 1))
    return torch.stack(found, -2)


def _written(function: Callable[..., Any]) -> Handler:
    """Written out where the matrix depends on the input and is small; the call stays otherwise."""

    def handle(site: Site) -> Any:
        arguments = site.arguments()
        size = arguments[0].shape[-1]
        small = not is_free(size) and size <= LARGEST and arguments[0].dtype.is_floating_point
        return function(*arguments) if small and _is_computed(site.node) else NotImplemented

    return handle


def _is_computed(node: fx.Node) -> bool:
    """Whether a node depends on an input."""
    return any(one.op == "placeholder" for one in needed_for([node]))


MATRICES: dict[Any, Handler] = {
    aten._linalg_det.default: _written(det),
    aten._linalg_slogdet.default: _written(slogdet),
    aten.linalg_solve.default: _written(solve),
    aten.linalg_inv.default: _written(inverse),
    aten.linalg_cholesky.default: _written(cholesky),
}
