"""Zeros around a value, put there as late as can be: what multiplies them need not be computed.

The adjoint of taking a part is a padding with zeros: of the class token, or of the values among queries, keys and
values. With the routing of an attention held constant nothing else is ever added to those zeros, and a product
with a weight that mixes the padded axis needs the rows of that part alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from fxpullback.graph.compilation import Compilation
from fxpullback.graph.ir import arg, aten, depends_on, input_nodes, is_size, placeholders, schema_arguments
from fxpullback.graph.module import Graph
from fxpullback.graph.rebuild import Made, Site, StandIn, rebuild
from fxpullback.graph.shapes import same_shape


@dataclass(frozen=True)
class Padded(StandIn):
    """`value` with zeros before and behind it along one axis, counted from the first."""

    value: Any
    axis: int
    before: int
    behind: int

    def whole(self, made: Made) -> Any:
        """The value with its zeros."""
        if id(self) not in made:
            sides = [0] * (2 * (self.value.ndim - self.axis))
            sides[-2:] = [self.before, self.behind]
            made[id(self)] = self, torch.constant_pad_nd(self.value, sides, 0.0)
        return made[id(self)][1]

    def around(self, value: Any, axis: int | None = None) -> Padded:
        """Another value with as many zeros."""
        return Padded(value, self.axis if axis is None else axis, self.before, self.behind)


def pad_late(gm: fx.GraphModule, compilation: Compilation | None = None) -> tuple[Graph, int]:
    """Put zeros around values behind the products that leave them zero.

    Before: y = matmul(pad(ct, 0, n), w)
    After:  y = matmul(ct, w[:k])

    Args:
        gm: plain forward operators.
        compilation: what the stages of one compilation share.

    Returns:
        The equivalent graph, and how many products were made smaller.
    """
    variable = depends_on(gm.graph, placeholders(gm.graph))
    smaller = 0

    def late(site: Site) -> Any:
        nonlocal smaller
        node, made = site.node, NotImplemented
        handler = HANDLERS.get(node.target)
        operands = [n for n in input_nodes(node) if isinstance(site.env.get(n), Padded)]
        if node.target is aten.constant_pad_nd.default:
            made = _padding(site)
        elif handler is not None and len(operands) == (2 if node.target is aten.add.Tensor else 1):
            made = handler(site, operands[0] is arg(node, 0), variable)
            smaller += made is not NotImplemented and node.target is aten.matmul.default
        if made is NotImplemented:
            made = site.copy()
        needed = any(user.op == "output" for user in node.users)
        if isinstance(made, Padded) and (needed or not any(user.target in HANDLERS for user in node.users)):
            return made.whole(site.made)
        return made

    return rebuild(gm, late, compilation), smaller


def _padding(site: Site) -> Any:
    """A padding with zeros along one axis of a known size."""
    x, sides, fill = schema_arguments(site.node)
    found = site.env[x]
    if fill or isinstance(found, Padded) or not all(isinstance(s, int) and s >= 0 for s in sides):
        return NotImplemented
    axes = [i for i in range(len(sides) // 2) if sides[2 * i] or sides[2 * i + 1]]
    if len(axes) != 1 or not found.dtype.is_floating_point:
        return NotImplemented
    axis = found.ndim - 1 - axes[0]
    if not isinstance(found.shape[axis], int):
        return NotImplemented
    return Padded(found, axis, sides[2 * axes[0]], sides[2 * axes[0] + 1])


def _product(site: Site, first: bool, variable: set[fx.Node]) -> Any:
    """A product with a value of the whole shape, or one that is repeated along the axis, or a number."""
    node, env = site.node, site.env
    padded: Padded = env[arg(node, 0 if first else 1)]
    other = arg(node, 1 if first else 0)
    if isinstance(other, int | float) and first and not node.kwargs:
        by = other if node.target is aten.mul.Tensor else 1 / other
        return padded.around(padded.value * by)
    if not isinstance(other, fx.Node) or is_size(other) or node.target is not aten.mul.Tensor:
        return NotImplemented
    value, axis = env[other], padded.axis - (padded.value.ndim - other.meta["val"].ndim)
    if value.ndim > padded.value.ndim:
        return NotImplemented
    if axis >= 0 and value.shape[axis] != 1:
        value = aten.slice.Tensor(value, axis, padded.before, padded.before + padded.value.shape[padded.axis], 1)
    return padded.around(padded.value * value)


def _sum(site: Site, first: bool, variable: set[fx.Node]) -> Any:
    """A sum of two parts with the same zeros around them."""
    node, env = site.node, site.env
    a, b = (env[n] for n in node.args[:2])  # type: ignore[index]
    same = (a.axis, a.before, a.behind) == (b.axis, b.before, b.behind) and a.value.ndim == b.value.ndim
    return a.around(a.value + b.value) if same and not node.kwargs else NotImplemented


def _matmul(site: Site, first: bool, variable: set[fx.Node]) -> Any:
    """Of the part alone, where a product mixes the axis; a constant matrix on another leaves the zeros."""
    node, env = site.node, site.env
    padded: Padded = env[arg(node, 0 if first else 1)]
    if not first:
        other = arg(node, 0)
        if padded.axis != padded.value.ndim - 2 or other.meta["val"].ndim < 2:
            return NotImplemented
        end = padded.before + padded.value.shape[padded.axis]
        return torch.matmul(aten.slice.Tensor(env[other], -1, padded.before, end, 1), padded.value)
    weight = arg(node, 1)
    if weight in variable or weight.meta["val"].ndim != 2:
        return NotImplemented
    if padded.axis == padded.value.ndim - 1:
        rows = aten.slice.Tensor(env[weight], 0, padded.before, padded.before + padded.value.shape[-1], 1)
        return torch.matmul(padded.value, rows)
    return padded.around(torch.matmul(padded.value, env[weight]))


def _permuted(site: Site, first: bool, variable: set[fx.Node]) -> Any:
    node, env = site.node, site.env
    padded: Padded = env[arg(node, 0)]
    n = padded.value.ndim
    order = list(range(n))
    if node.target is aten.permute.default:
        order = [int(d) % n for d in arg(node, 1)]
    else:
        a, b = (int(d) % n for d in node.args[1:3])  # type: ignore[arg-type]
        order[a], order[b] = order[b], order[a]
    return padded.around(padded.value.permute(order), order.index(padded.axis))


def _reshaped(site: Site, first: bool, variable: set[fx.Node]) -> Any:
    """A reshape that leaves the axis and those before it alone, or joins those behind to it."""
    node, env = site.node, site.env
    padded: Padded = env[arg(node, 0)]
    old, new = list(arg(node, 0).meta["val"].shape), list(node.meta["val"].shape)
    at, each = padded.axis, 1
    if len(new) <= at or not same_shape(old[:at], new[:at]):
        return NotImplemented
    joined = at + 1
    while old[at] * each != new[at] and joined < len(old) and isinstance(old[joined], int):
        each, joined = each * old[joined], joined + 1
    if not isinstance(new[at], int) or old[at] * each != new[at]:
        return NotImplemented
    if each > 1 and not same_shape(old[joined:], new[at + 1 :]):
        return NotImplemented
    sizes = [*new[:at], padded.value.shape[at] * each, *new[at + 1 :]]
    made = Padded(padded.value.reshape(sizes), at, padded.before * each, padded.behind * each)
    return made


HANDLERS: dict[Any, Callable[[Site, bool, set[fx.Node]], Any]] = {
    aten.add.Tensor: _sum,
    aten.mul.Tensor: _product,
    aten.div.Tensor: _product,
    aten.matmul.default: _matmul,
    aten.permute.default: _permuted,
    aten.transpose.int: _permuted,
    aten.reshape.default: _reshaped,
    aten.view.default: _reshaped,
}
"""What leaves zeros zero, by operator; before every other they are put there."""
