"""Entries that a mask chooses, worked on and put back where they were: `y[y < 0] *= a` is a choice between two values.

How many entries there are depends on the values of the input, so no graph holds them by themselves. Where they go back
to the places of the same mask, the same is computed of the whole tensor, and the mask chooses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from fxpullback.capture.like import call_like
from fxpullback.graph.ir import arg, aten, calls, depends_on, input_nodes, node_argument, placeholders, schema_arguments
from fxpullback.graph.module import Graph

_PUTS = (aten.index_put.default, aten.masked_scatter.default)
_MOVED = frozenset({aten._to_copy.default, aten.clone.default, aten.alias.default})
_FINITE = _MOVED | frozenset({
    aten.mul.Tensor, aten.mul.Scalar, aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar,
    aten.rsub.Scalar, aten.neg.default, aten.relu.default, aten.leaky_relu.default, aten.tanh.default,
    aten.sigmoid.default, aten.abs.default,
})  # fmt: skip
"""Operators with a finite value and derivative at every finite number: those of others than the mask chose may pass."""

INSIDE = 0.5
"""Stands for the entries that a mask does not choose, where an operator may have no value or derivative for them."""


def in_whole(gm: Graph) -> Graph:
    """Put a choice by the mask in place of entries that a mask took out, changed one by one, and put back.

    What is left as it is: entries that are summed, sorted, or put at the places of another mask.

    Args:
        gm: a functional graph, which is changed.

    Returns:
        The same graph.
    """
    dependent = depends_on(gm.graph, placeholders(gm.graph))
    puts = [put for node in calls(gm.graph) if node.target in _PUTS and (put := _Put.of(node)) is not None]
    written = [(put.node, made) for put in puts if (made := put.whole(dependent)) is not None]
    if not written:
        return gm
    for node, made in written:
        node.replace_all_uses_with(made)
    for node in reversed(list(calls(gm.graph))):
        if not node.users and not node.is_impure():
            gm.graph.erase_node(node)
    gm.recompile()
    return gm


class _Put:
    """One call that puts values at the places of a mask.

    Attributes:
        node: the call.
        x: what it puts them into.
        mask: the mask, along the leading axes of x.
        values: what it puts there.
        added: whether they are added to what is there.
    """

    def __init__(self, node: fx.Node, x: fx.Node, mask: fx.Node, values: fx.Node, added: bool) -> None:
        self.node, self.x, self.mask, self.values, self.added = node, x, mask, values, added
        self.rest = x.meta["val"].ndim - mask.meta["val"].ndim  # how many axes the mask leaves alone

    @classmethod
    def of(cls, node: fx.Node) -> _Put | None:
        """None for a call that puts values at places, or by several masks."""
        if node.target is aten.masked_scatter.default:
            x, mask, values = schema_arguments(node)
            fits = mask.meta["val"].ndim == x.meta["val"].ndim
            return cls(node, x, mask, values, False) if fits else None
        x, indices, values, added = schema_arguments(node)
        mask = _only_mask(indices)
        return None if mask is None else cls(node, x, mask, values, bool(added))

    def whole(self, dependent: set[fx.Node]) -> fx.Node | None:
        """The same as a choice; None where what is put there is not what the same mask took out, entry by entry."""
        chain = self._chain()
        if chain is None:
            return None
        guarded = any(n.target not in _FINITE for n in chain)
        others = {n for step in chain for n in input_nodes(step)} - chain
        taken = {n for n in (*others, self.values) if self._takes(n)}
        if guarded and any(n in dependent and n not in taken for n in others):
            return None
        if guarded and not all(n.meta["val"].is_floating_point() for n in taken):
            return None
        graph, made = self.node.graph, dict[fx.Node, fx.Node]()
        with graph.inserting_before(self.node):
            mask = self.mask
            for _ in range(self.rest):
                mask = self._call(aten.unsqueeze.default, mask, -1)
            for node in (n for n in list(graph.nodes) if n in chain or n in others or n is self.values):
                if node in taken:
                    whole = node_argument(node, 0)
                    made[node] = self._call(aten.where.ScalarOther, mask, whole, INSIDE) if guarded else whole
                elif node in chain:
                    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: made.get(n, n))
                    made[node] = self._call(node.target, *args, like=node, **kwargs)
            values = made.get(self.values, self.values)
            if self.added:
                values = self._call(aten.add.Tensor, self.x, values)
            return self._call(aten.where.self, mask, values, self.x)

    def _takes(self, node: fx.Node) -> bool:
        """Whether a node takes the entries of the same mask out of a tensor of the same shape."""
        if node.target is aten.index.Tensor:
            mask = _only_mask(arg(node, 1))
        elif node.target is aten.masked_select.default:
            mask = node_argument(node, 1)
        else:
            return False
        taken = node_argument(node, 0)
        if mask is None or taken.meta["val"].ndim != mask.meta["val"].ndim + self.rest:
            return False
        return _same(mask, self.mask)

    def _chain(self) -> set[fx.Node] | None:
        """The operators between the entries that were taken out and what is put back; None where one is in the way."""
        found, waiting = set[fx.Node](), [self.values]
        while waiting:
            node = waiting.pop()
            if node in found or self._takes(node) or self._fits(node):
                continue
            if not _is_one_by_one(node):
                return None
            found.add(node)
            waiting += input_nodes(node)
        return found

    def _fits(self, node: fx.Node) -> bool:
        """Whether a value has no axis along which the chosen entries are counted: it means the same for all of them."""
        val = node.meta["val"]
        if not isinstance(val, Tensor):
            return False
        leading = val.shape[: max(0, val.ndim - self.rest)]
        return not free_unbacked_symbols(val) and len(leading) <= 1 and all(n == 1 for n in leading)

    def _call(self, target: Any, *args: Any, like: fx.Node | None = None, **kwargs: Any) -> fx.Node:
        return call_like(like or self.node, target, *args, **kwargs)


def _only_mask(indices: Any) -> fx.Node | None:
    """The mask of an index that is one mask along the leading axes."""
    first, *rest = indices
    is_mask = isinstance(first, fx.Node) and first.meta["val"].dtype in (torch.bool, torch.uint8)
    return first if is_mask and first.meta["val"].ndim and all(i is None for i in rest) else None


def _is_one_by_one(node: fx.Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    drawn = torch.Tag.nondeterministic_seeded in node.target.tags
    return (torch.Tag.pointwise in node.target.tags and not drawn) or node.target in _MOVED


def _same(a: Any, b: Any, known: set[tuple[fx.Node, fx.Node]] | None = None) -> bool:
    """Whether two nodes compute the same: `y[y < 0] = f(y[y < 0])` computes its mask twice."""
    known = set() if known is None else known  # pairs that were compared already
    if a is b:
        return True
    if isinstance(a, fx.Node) and isinstance(b, fx.Node):
        if (a, b) in known:
            return True
        if a.op != "call_function" or a.target is not b.target or not isinstance(a.target, torch._ops.OpOverload):
            return False
        known.add((a, b))
        drawn = torch.Tag.nondeterministic_seeded in a.target.tags
        return not drawn and _same(a.args, b.args, known) and _same(dict(a.kwargs), dict(b.kwargs), known)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y, known) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k], known) for k in a)
    return type(a) is type(b) and not isinstance(a, torch.SymInt) and bool(a == b)
