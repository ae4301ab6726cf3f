"""What the axes of every value of a captured graph are, found out by one walk from the input.

Nothing is assumed that the operators do not say: of what an operator does not keep in place the axes are unknown, and a
sum with a value whose axes are known makes them known again, as behind windows that were shifted and shifted back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from fxpullback.graph.ir import GETITEM, LAID_OUT, aten, depends_on, explained, input_nodes, is_size, schema_arguments
from fxpullback.graph.operators import OPERATORS, OperatorTable, Trait
from fxpullback.taps.axes import (
    BATCH,
    FEATURES,
    OTHER,
    Axis,
    Layout,
    axis,
    broadcast,
    concatenated,
    narrowed,
    reshaped,
    unknown,
)

_PRIMES = (1_000_003, 10_007, 10_009, 10_037, 10_039)
"""What symbols are counted as: no size of a model is a multiple of one."""


@dataclass(frozen=True)
class Sizes:
    """Sizes as numbers, the symbols among them as primes.

    Attributes:
        primes: the prime of every symbol, that of the batch first.
        free: the numbers that stand for sizes of other symbols than the batch, of those asked for so far.
    """

    primes: dict[Any, int]
    free: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, graph: fx.Graph) -> Sizes:
        """Those of a graph."""
        symbols: list[Any] = []
        for size in explained(graph).meta["val"].shape:
            if isinstance(size, torch.SymInt):
                symbols += [s for s in size.node.expr.free_symbols if s not in symbols]
        return cls(dict(zip(symbols, _PRIMES, strict=False)))

    @property
    def batch(self) -> int:
        """What stands for the batch."""
        return _PRIMES[0]

    def number(self, size: Any) -> int:
        """One size; -1 where it holds a symbol that the input does not."""
        if not isinstance(size, torch.SymInt):
            return int(size)
        value = size.node.expr.subs(self.primes)
        found = int(value) if value.is_number else -1
        if any(self.primes.get(symbol) != self.batch for symbol in size.node.expr.free_symbols):
            self.free.add(found)
        return found

    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        """The sizes of a tensor."""
        return tuple(self.number(size) for size in tensor.shape)


def layouts(graph: fx.Graph, operators: OperatorTable = OPERATORS, sizes: Sizes | None = None) -> dict[fx.Node, Any]:
    """What the axes are of every value that depends on the input.

    Args:
        graph: a captured graph.
        operators: what is true of every operator.
        sizes: its sizes as numbers.

    Returns:
        A `Layout` for every such node; a tuple of them where an operator has several results.
    """
    walk = _Walk(sizes or Sizes.of(graph), operators)
    source = explained(graph)
    walk.found[source] = _of_input(walk.sizes.shape(source.meta["val"]), source.meta.get(LAID_OUT) == "embedded")
    reached = depends_on(graph, [source])
    for node in graph.nodes:
        if node in reached and node.op == "call_function" and not is_size(node):
            walk.found[node] = walk.visit(node)
            if LAID_OUT in node.meta:
                shape = walk.sizes.shape(node.meta["val"])
                walk.found[node] = _of_input(shape, node.meta[LAID_OUT] == "embedded")
    return walk.found


def _of_input(shape: tuple[int, ...], is_embedded: bool) -> Layout:
    """A picture or volume has its channels first; of a sequence the first operator that mixes an axis says which.

    What ids were looked up as has its features last.
    """
    if is_embedded:
        roles = [BATCH, *range(len(shape) - 2), FEATURES]
        return tuple(axis(size, role) for size, role in zip(shape, roles, strict=True))
    first = 2 if len(shape) in (2, 4, 5) else 1
    roles = [BATCH, *[FEATURES] * (first - 1), *range(len(shape) - first)]
    return tuple(axis(size, role) for size, role in zip(shape, roles, strict=True))


class _Walk:
    """Layouts by node, each made of those of the node's arguments."""

    def __init__(self, sizes: Sizes, operators: OperatorTable) -> None:
        self.sizes, self.operators = sizes, operators
        self.found: dict[fx.Node, Any] = {}

    def visit(self, node: fx.Node) -> Any:
        """The layout of a node's result, or one for each of several."""
        if node.target is GETITEM:
            return self.found[node.args[0]][node.args[1]]  # type: ignore[index]
        val = node.meta["val"]
        if isinstance(val, Tensor):
            return self._settled(self._made(node), self.sizes.shape(val))
        made = self._parts(node)
        shapes = [self.sizes.shape(v) if isinstance(v, Tensor) else () for v in val]
        return tuple(self._settled(one, shape) for one, shape in zip(made, shapes, strict=True))

    def _settled(self, layout: Layout | None, shape: tuple[int, ...]) -> Layout:
        """The layout, if its sizes are those of the value; else nothing is known."""
        if layout is not None and tuple(one.size for one in layout) == shape:
            return layout
        return unknown(shape, self.sizes.batch)

    def of(self, node: Any) -> Layout | None:
        """The layout of an argument; None where it does not depend on the input."""
        found = self.found.get(node) if isinstance(node, fx.Node) else None
        return found if found is None or (found and isinstance(found[0], Axis)) else found[0]

    def _parts(self, node: fx.Node) -> list[Layout | None]:
        """Of several results: those of a split, else the first alone, which a norm keeps in place."""
        count = len(node.meta["val"])
        arguments = schema_arguments(node)
        x = self.of(arguments[0])
        if x is None:
            return [None] * count
        if node.target is aten.unbind.int:
            dim = arguments[1] % len(x)
            return [x[:dim] + x[dim + 1 :]] * count
        if node.target in (aten.split.Tensor, aten.split_with_sizes.default):
            dim = arguments[2] % len(x)
            parts, start = list[Layout | None](), 0
            for val in node.meta["val"]:
                length = self.sizes.number(val.shape[dim])
                parts.append((*x[:dim], narrowed(x[dim], start, length), *x[dim + 1 :]))
                start += length
            return parts
        shape = self.sizes.shape(node.meta["val"][0])
        return [self._kept(node, x, shape), *[None] * (count - 1)]

    def _made(self, node: fx.Node) -> Layout | None:
        shape = self.sizes.shape(node.meta["val"])
        arguments = schema_arguments(node)
        handler = _HANDLERS.get(node.target)
        if handler is not None:
            return handler(self, arguments, shape)
        known = [x for n in input_nodes(node) if (x := self.of(n)) is not None]
        if Trait.POINTWISE in self.operators.at(node):
            return broadcast(known, shape)
        return self._kept(node, known[0], shape) if known else None

    def _kept(self, node: fx.Node, x: Layout, shape: tuple[int, ...]) -> Layout | None:
        """Of a window or a resampling the places are those of the result; what keeps its shape keeps its places."""
        if Trait.REDUCTION in self.operators.at(node) and len(x) != len(shape):
            return None
        if len(x) != len(shape) or Trait.OPAQUE in self.operators.at(node):
            return None
        return tuple(_resized(one, size, i - 2) for i, (one, size) in enumerate(zip(x, shape, strict=True)))


def _resized(one: Axis, size: int, place: int) -> Axis:
    """An axis of places in another resolution, on the same axis of the grid."""
    if one.size == size:
        return one
    roles = {atom.role for atom in one.atoms}
    if len(roles) == 1 and not one.ragged:
        return axis(size, roles.pop())
    return axis(size, OTHER if one.atoms else max(place, OTHER))


def _convolution(walk: _Walk, arguments: Any, shape: Any) -> Layout | None:
    x = walk.of(arguments[0])
    if x is None:
        return None
    places = [_resized(one, size, i) for i, (one, size) in enumerate(zip(x[2:], shape[2:], strict=True))]
    return (x[0], axis(shape[1], FEATURES), *places)


def _linear(walk: _Walk, arguments: Any, shape: Any) -> Layout | None:
    x = walk.of(arguments[0])
    return None if x is None else (*x[:-1], axis(shape[-1], FEATURES))


def _matmul(walk: _Walk, arguments: Any, shape: Any) -> Layout | None:
    """Rows of the first, columns of the second; the rest is broadcast."""
    a, b = walk.of(arguments[0]), walk.of(arguments[1])
    if len(shape) < 2 or any(x is not None and len(x) < 2 for x in (a, b)):
        return None
    outer = broadcast([x[:-2] for x in (a, b) if x is not None], shape[:-2])
    rows = a[-2] if a is not None else axis(shape[-2], FEATURES)
    columns = b[-1] if b is not None else axis(shape[-1], FEATURES)
    return (*outer, rows, columns)


def _attention(walk: _Walk, arguments: Any, shape: Any) -> Layout | None:
    q, v = walk.of(arguments[0]), walk.of(arguments[2])
    if q is None or v is None:
        return None
    return (*broadcast([q[:-2], v[:-2]], shape[:-2]), q[-2], v[-1])


def _reshape(walk: _Walk, arguments: Any, shape: Any) -> Layout | None:
    x = walk.of(arguments[0])
    return None if x is None else reshaped(x, shape)


def _permute(walk: _Walk, arguments: Any, shape: Any) -> Layout | None:
    x = walk.of(arguments[0])
    return None if x is None else tuple(x[i] for i in arguments[1])


def _transpose(walk: _Walk, arguments: Any, shape: Any) -> Layout | None:
    x = walk.of(arguments[0])
    if x is None:
        return None
    made, (a, b) = list(x), arguments[1:3]
    made[a], made[b] = made[b], made[a]
    return tuple(made)


def _expand(walk: _Walk, arguments: Any, shape: Any) -> Layout | None:
    x = walk.of(arguments[0])
    return None if x is None else broadcast([x], shape)


def _select(walk: _Walk, arguments: Any, shape: Any) -> Layout | None:
    x, dim = walk.of(arguments[0]), arguments[1]
    return None if x is None else tuple(one for i, one in enumerate(x) if i != dim % len(x))


def _slice(walk: _Walk, arguments: Any, shape: Any) -> Layout | None:
    x, (_, dim, start, _, step) = walk.of(arguments[0]), arguments
    if x is None or isinstance(start, fx.Node):
        return None
    dim %= len(x)
    one, start = x[dim], start or 0
    start = start + one.size if start < 0 else start
    part = narrowed(one, start, shape[dim]) if step == 1 else _resized(one, shape[dim], OTHER)
    return (*x[:dim], part, *x[dim + 1 :])


def _cat(walk: _Walk, arguments: Any, shape: Any) -> Layout | None:
    tensors, dim = arguments
    sizes = [walk.sizes.shape(t.meta["val"]) for t in tensors]
    return concatenated([walk.of(t) for t in tensors], sizes, dim % len(shape))


def _stack(walk: _Walk, arguments: Any, shape: Any) -> Layout | None:
    known = [x for t in arguments[0] if (x := walk.of(t)) is not None]
    dim = arguments[1] % len(shape)
    made = list(broadcast(known, shape[:dim] + shape[dim + 1 :]))
    return (*made[:dim], axis(shape[dim], OTHER), *made[dim:])


def _reduced(walk: _Walk, arguments: Any, shape: Any) -> Layout | None:
    x, dims = walk.of(arguments[0]), arguments[1]
    if x is None or len(arguments) < 3 or not isinstance(dims, int | list | tuple):
        return None
    gone = {d % len(x) for d in ([dims] if isinstance(dims, int) else dims)}
    if not arguments[2]:
        return tuple(one for i, one in enumerate(x) if i not in gone)
    return tuple(Axis(1) if i in gone else one for i, one in enumerate(x))


def _moved(walk: _Walk, arguments: Any, shape: Any) -> Layout | None:
    """What moves along an axis of places, as a roll, leaves it unknown."""
    x = walk.of(arguments[0])
    if x is None:
        return None
    dims = {d % len(x) for d in arguments[-1]} if arguments[-1] else set(range(len(x)))
    return tuple(axis(one.size, OTHER) if i in dims and one.places else one for i, one in enumerate(x))


def _shuffled(walk: _Walk, arguments: Any, shape: Any) -> Layout | None:
    x = walk.of(arguments[0])
    if x is None:
        return None
    return tuple(_resized(one, size, i - 2) for i, (one, size) in enumerate(zip(x, shape, strict=True)))


_HANDLERS: dict[Any, Callable[[_Walk, Any, Any], Layout | None]] = {
    aten.convolution.default: _convolution,
    aten.linear.default: _linear,
    aten.matmul.default: _matmul,
    aten.scaled_dot_product_attention.default: _attention,
    **dict.fromkeys(
        (
            aten.reshape.default,
            aten.unsqueeze.default,
            aten.squeeze.default,
            aten.squeeze.dim,
            aten.squeeze.dims,
        ),
        _reshape,
    ),
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.expand.default: _expand,
    aten.select.int: _select,
    aten.slice.Tensor: _slice,
    aten.cat.default: _cat,
    aten.stack.default: _stack,
    **dict.fromkeys((aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default), _reduced),
    **dict.fromkeys((aten.roll.default, aten.flip.default), _moved),
    **dict.fromkeys(
        (aten.pixel_shuffle.default, aten.pixel_unshuffle.default, aten.channel_shuffle.default), _shuffled
    ),
}
