"""Sizes of results where they are free: what torch's shape functions would first want to decide, written as a formula.

A shape function of torch asks, say, whether a slice ends inside its tensor. Where sizes are free that has no answer;
here it is known by construction, so the size that follows is stated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sympy
import torch
from torch import Tensor, fx

from fxpullback.graph.ir import aten


def is_free(size: Any) -> bool:
    """Whether a size is no number."""
    return isinstance(size, torch.SymInt) and not size.node.expr.is_Integer


def plain(size: Any) -> Any:
    """A size as a plain integer where it is one."""
    return int(size.node.expr) if isinstance(size, torch.SymInt) and size.node.expr.is_Integer else size


def same_size(a: Any, b: Any) -> bool:
    """Whether two sizes are the same expression; two that agree for some inputs only are not."""
    if is_free(a) or is_free(b):
        return is_free(a) and is_free(b) and bool(a.node.expr == b.node.expr)
    return bool(plain(a) == plain(b))


def same_shape(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether two shapes are the same, free sizes included."""
    return len(a) == len(b) and all(same_size(m, n) for m, n in zip(a, b, strict=True))


def alike(a: fx.Node, b: fx.Node) -> bool:
    """Whether two nodes are tensors of one shape."""
    return same_shape(a.meta["val"].shape, b.meta["val"].shape)


def whole_ratio(size: Any, part: Any) -> int:
    """By how much `size` is larger than `part`, where that is one whole number for all sizes; else 0."""
    if is_free(size) or is_free(part):
        a, b = (n.node.expr if isinstance(n, torch.SymInt) else n for n in (size, part))
        ratio = sympy.cancel(sympy.sympify(a) / b)
        return int(ratio) if ratio.is_Integer else 0
    return int(size // part) if size % part == 0 else 0


def places(count: Any, x: Any) -> Any:
    """0, 1, ... up to a size, which may be free, on the device of `x`."""
    return x.places(count) if is_free(count) else torch.arange(plain(count), device=x.device)


def over(x: Any, count: Any) -> Any:
    """x / count for a number of positions, which may be free."""
    return aten.div.Tensor(x, count) if is_free(count) else x * (1 / plain(count))


def stated_shape(target: Any, args: tuple[Any, ...]) -> Tensor | None:
    """A fake result of the size that an operator has by construction; None for operators without a formula.

    Args:
        target: the operator.
        args: its arguments, tensors as fake tensors.
    """
    formula = _FORMULAS.get(target)
    shape = None if formula is None else formula(*args)
    if shape is None:
        return None
    x = args[0]
    with x.fake_mode, x.fake_mode.shape_env.suppress_guards():
        result: Tensor = torch.empty_strided(shape, _strides(shape), dtype=x.dtype, device=x.device)
    return result


def _strides(shape: list[Any]) -> list[Any]:
    strides: list[Any] = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    return strides[: len(shape)]


def _slice(x: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> list[Any] | None:
    """Slices that are written with a free end lie inside their tensor."""
    start = 0 if start is None else start
    if not is_free(end) and not is_free(start):
        return None
    length = (end - start + step - 1) // step if step > 1 else end - start
    return _with(x, dim, length)


def _pad(x: Tensor, sides: list[Any], value: float = 0.0) -> list[Any]:
    shape: list[Any] = list(x.shape)
    for i in range(len(sides) // 2):
        shape[-1 - i] = shape[-1 - i] + sides[2 * i] + sides[2 * i + 1]
    return [plain(size) for size in shape]


def _scaled(x: Tensor, other: Any) -> list[Any] | None:
    return list(x.shape) if isinstance(other, torch.SymInt) else None


def _reshape(x: Tensor, sizes: list[Any]) -> list[Any] | None:
    return None if any(not is_free(size) and plain(size) == -1 for size in sizes) else list(sizes)


def _with(x: Tensor, dim: int, size: Any) -> list[Any]:
    shape: list[Any] = list(x.shape)
    shape[dim] = plain(size)
    return shape


_FORMULAS: dict[Any, Callable[..., list[Any] | None]] = {
    aten.slice.Tensor: _slice,
    aten.constant_pad_nd.default: _pad,
    aten.div.Tensor: _scaled,
    aten.mul.Tensor: _scaled,
    aten.reshape.default: _reshape,
}
