"""Operators that read and write entries by their places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.numbers import Known
from fxpullback.importer.site import Node, tensor


def gather(node: Node, x: Any, index: Any) -> Any:
    """Entries along an axis by their places."""
    axis = node.get("axis", 0)
    if isinstance(x, Known) and isinstance(index, Known):
        return Known(np.take(x.array, index.array.astype(np.int64), axis), x.floats)
    x, given = tensor(x), index
    axis %= x.ndim
    constant = node.constant(1)
    if constant is None and isinstance(given, Known) and given.array.dtype != object:
        constant = given.array
    if constant is not None and constant.ndim == 0:
        return x.select(axis, int(constant))
    places = tensor(given).long()
    if node.constant(0) is not None and axis == 0 and x.ndim == 2 and x.is_floating_point():
        return F.embedding(places, x)
    places = torch.where(places < 0, places + x.shape[axis], places)
    if places.ndim == 1:
        return x.index_select(axis, places)
    flat = x.index_select(axis, places.reshape(-1))
    return flat.reshape([*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]])


def gather_elements(node: Node, x: Any, index: Any) -> Any:
    """For each entry of the index the entry of its line at that place."""
    x, index, axis = tensor(x), tensor(index).long(), node.get("axis", 0)
    index = torch.where(index < 0, index + x.shape[axis], index)
    return torch.gather(x, axis, index)


def gather_nd(node: Node, x: Any, index: Any) -> Any:
    """Entries by tuples of places."""
    x, index = tensor(x), tensor(index).long()
    batch = node.get("batch_dims", 0)
    depth = index.shape[-1]
    if batch == 0:
        return x[tuple(index[..., i] for i in range(depth))]
    lead = [
        torch.arange(x.shape[i]).reshape([-1 if j == i else 1 for j in range(index.ndim - 1)]) for i in range(batch)
    ]
    return x[(*lead, *(index[..., i] for i in range(depth)))]


def scatter_elements(node: Node, x: Any, index: Any, updates: Any) -> Any:
    """x with other values at some places of its lines."""
    x, index, updates = tensor(x), tensor(index).long(), tensor(updates)
    axis, kind = node.get("axis", 0), node.text("reduction", "none")
    index = torch.where(index < 0, index + x.shape[axis], index)
    if kind == "none":
        return torch.scatter(x, axis, index, updates)
    if kind == "add":
        return torch.scatter_add(x, axis, index, updates)
    names = {"mul": "prod", "max": "amax", "min": "amin"}
    return torch.scatter_reduce(x, axis, index, updates, names[kind])


def scatter_nd(node: Node, x: Any, index: Any, updates: Any) -> Any:
    """x with other values at tuples of places."""
    if all(isinstance(value, Known) for value in (x, index, updates)):
        array = x.array.copy()
        array[tuple(np.moveaxis(index.array.astype(np.int64), -1, 0))] = updates.array
        return Known(array, x.floats)
    x, index, updates = tensor(x), tensor(index).long(), tensor(updates)
    kind = node.text("reduction", "none")
    places = tuple(index[..., i] for i in range(index.shape[-1]))
    if kind not in ("none", "add"):
        raise CaptureError(f"its reduction {kind} is not supported")
    return torch.index_put(x, places, updates, kind == "add")


def one_hot(node: Node, index: Any, depth: Any, values: Any) -> Any:
    """One value at the places of an index, another elsewhere."""
    count, axis = int(node.number(1, [index, depth])), node.get("axis", -1)
    index, values = tensor(index), tensor(values)
    index = torch.where(index < 0, index + count, index)
    hit = index.long().unsqueeze(axis) == torch.arange(count).reshape(
        [-1 if i == axis % (index.ndim + 1) else 1 for i in range(index.ndim + 1)]
    )
    return torch.where(hit, values[1], values[0])


def top_k(node: Node, x: Any, *rest: Any) -> Any:
    """The largest or smallest entries along an axis, and their places."""
    count = node.get("k") if node.opset < 10 else node.number(1, [x, *rest])
    found = torch.topk(x, count, node.get("axis", -1), bool(node.get("largest", 1)), bool(node.get("sorted", 1)))
    return tuple(found)


def reverse_sequence(node: Node, x: Any, lengths: Any) -> Any:
    """The first entries of every line turned round."""
    batch, time = node.get("batch_axis", 1), node.get("time_axis", 0)
    moved = x.movedim((batch, time), (0, 1))
    steps, count = torch.arange(moved.shape[1])[None], tensor(lengths)[:, None]
    places = torch.where(steps < count, count - 1 - steps, steps)
    index = places.reshape([*places.shape, *[1] * (moved.ndim - 2)]).expand(moved.shape)
    return torch.gather(moved, 1, index).movedim((0, 1), (batch, time))


def chosen(node: Node, x: Any, condition: Any) -> Any:
    """The entries along an axis at which a constant condition holds."""
    mask = node.numbers(1, [x, condition])
    assert mask is not None
    x = tensor(x)
    axis = node.get("axis")
    places = torch.from_numpy(np.flatnonzero(np.array(mask, bool)))
    return x.reshape(-1).index_select(0, places) if axis is None else x.index_select(axis, places)


OPERATORS: dict[str, Callable[..., Any]] = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ScatterElements": scatter_elements,
    "Scatter": scatter_elements,
    "ScatterND": scatter_nd,
    "OneHot": one_hot,
    "TopK": top_k,
    "ReverseSequence": reverse_sequence,
    "Compress": chosen,
}
