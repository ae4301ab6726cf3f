"""Rows of samples looked up in all samples laid one behind the other, as graph networks on points do.

`x.view(b * n, c)[i + arange(b) * n]` takes rows of each sample by itself: a gather. As an index its adjoint would mix
samples, and is refused.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from fxpullback.graph.ir import arg, aten, is_call, schema_arguments
from fxpullback.graph.rebuild import Site
from fxpullback.graph.shapes import is_free, same_size

_RESHAPES = (aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.unsqueeze.default)
_MOVES = (*_RESHAPES, aten.clone.default, aten.contiguous.default, aten._to_copy.default)


def rows_of_samples(site: Site) -> Any:
    """A gather of each sample by itself; NotImplemented for every other index.

    The index has to be one of each sample plus where the sample begins: its number times the rows of one.
    """
    flat, indices = arg(site.node, 0), arg(site.node, 1)
    source = _under(flat)
    if source is None or len(indices) != 1 or not isinstance(indices[0], fx.Node):
        return NotImplemented
    batch, rows, *rest = source.meta["val"].shape
    place = _own_place(indices[0], batch, rows)
    shape = flat.meta["val"].shape
    if place is None or is_free(rows) or len(shape) != 1 + len(rest) or not same_size(shape[0], batch * rows):
        return NotImplemented
    x, own = site.whole(source), site.whole(place)
    count = math.prod(own.shape[1:])
    own = own.to(torch.int64).reshape(batch, count, *[1] * len(rest)).expand([batch, count, *rest])
    return x.gather(1, own).reshape(*indices[0].meta["val"].shape, *rest)


def _under(node: Any) -> fx.Node | None:
    """What was reshaped to all rows of all samples: `[batch, rows, ...]` to `[batch * rows, ...]`."""
    while is_call(node, *_MOVES):
        held = arg(node, 0)
        before, after = held.meta["val"].shape, node.meta["val"].shape
        is_joined = len(before) == len(after) + 1 and list(map(str, before[2:])) == list(map(str, after[1:]))
        if is_joined and is_free(before[0]) and is_call(node, *_RESHAPES):
            return held  # type: ignore[no-any-return]
        if [*map(str, before)] != [*map(str, after)]:
            return None
        node = held
    return None


def _own_place(index: fx.Node, batch: Any, rows: Any) -> fx.Node | None:
    """The part of an index that says which row of a sample, where the other part says where the sample begins."""
    while is_call(index, *_MOVES):
        index = arg(index, 0)
    if not is_call(index, aten.add.Tensor) or index.kwargs:
        return None
    for own, offset in ((0, 1), (1, 0)):
        place, start = arg(index, own), arg(index, offset)
        if not (isinstance(place, fx.Node) and isinstance(start, fx.Node)):
            continue
        shapes = place.meta["val"].shape, start.meta["val"].shape, index.meta["val"].shape
        whole = [*map(str, shapes[0])] == [*map(str, shapes[2])] and same_size(shapes[0][0], batch)
        if whole and len(shapes[0]) == len(shapes[1]) and _begins(start, batch, rows):
            return place
    return None


def _begins(node: Any, batch: Any, rows: Any) -> bool:
    """Whether a value is `[batch, 1, ...]`: the number of each sample times the rows of one."""
    shape = node.meta["val"].shape
    if not same_size(shape[0], batch) or any(str(n) != "1" for n in shape[1:]):
        return False
    times = 1
    while is_call(node, *_MOVES, aten.mul.Tensor, aten.mul.Scalar, aten.slice.Tensor):
        if is_call(node, aten.slice.Tensor) and not _is_whole(node):
            return False
        if is_call(node, aten.mul.Tensor, aten.mul.Scalar):
            factor = arg(node, 1)
            if not isinstance(factor, int):
                return False
            times *= factor
        node = arg(node, 0)
    return is_counted(node) and times == rows and same_size(node.meta["val"].shape[0], batch)


def _is_whole(node: fx.Node) -> bool:
    """Whether a slice is all of what it is taken of, as `[:, None]` writes one."""
    x, *_, step = schema_arguments(node)
    return step == 1 and [*map(str, x.meta["val"].shape)] == [*map(str, node.meta["val"].shape)]


def is_counted(node: Any) -> bool:
    """Whether a value is 0, 1, ... up to a size."""
    return is_call(node, aten.arange.default) or (is_call(node, aten.arange.start) and arg(node, 0) == 0)
