"""Ids that a file writes out as ones and zeros, times a table: they are looked up, and can be explained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.importer.numbers import Array
from fxpullback.importer.operators.table import OPERATORS
from fxpullback.importer.site import Node, tensor
from fxpullback.importer.steps import Plan, Step

_SAME = {"Cast", "Identity"}
_SAME_IDS = {"Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Expand"}
_WHOLE = (2, 3, 4, 5, 6, 7, 12, 13)
"""Types of whole numbers, as ONNX counts them."""


def looked_up(plan: Plan, ids: str) -> Plan:
    """A plan in which the products of tables with the ones and zeros of ids are lookups.

    `one_hot(ids) @ table`, by `OneHot` or by a comparison with 0, 1, 2, ... as JAX writes it, gives the rows of
    the table. An id that it has no row for gives zeros in the file; as a lookup it is refused.

    Args:
        plan: what is run.
        ids: name of the input that is explained; products with others stay.
    """
    makers = {name: step for step in plan.steps for name in step.outputs if name}
    steps, rows = [], list[int]()
    for step in plan.steps:
        if step.node.kind == "Gather" and _wraps(plan, makers, step, ids):
            step = replace(step, inputs=(step.inputs[0], ids))
            plan.notes.append(f"ids that {step.node.name} has no row for are refused, where the file moves them")
        if step.node.kind == "Gather" and _is_of(makers, step.inputs[1], ids):
            rows += [
                len(table) for table in [plan.constants.get(step.inputs[0])] if table is not None and table.ndim == 2
            ]
        table = plan.constants.get(step.inputs[1]) if step.node.kind == "MatMul" and not step.node.domain else None
        places = _places(plan.constants, makers, step.inputs[0], table) if table is not None else None
        if places is not None and _is_of(makers, places, ids):
            step = replace(step, inputs=(*step.inputs, places), operator=_lookup)
            rows += [len(plan.constants[step.inputs[1]])]
            plan.notes.append(f"ids are looked up at {step.node.name}, where the file has ones and zeros times a table")
        steps.append(step)
    return replace(plan, steps=steps, ids=min(rows, default=0))


def _lookup(node: Node, ones: Any, table: Any, places: Any) -> Any:
    """The rows of a table, where the ids are one number each; else the product as it is written."""
    whole = isinstance(places, Tensor) and not places.is_floating_point() and places.dtype is not torch.bool
    if not whole or ones.ndim - places.ndim not in (0, 1):
        return OPERATORS["MatMul"](node, ones, table)
    if places.ndim == ones.ndim:
        if places.shape[-1] != 1:
            return OPERATORS["MatMul"](node, ones, table)
        places = places.reshape(places.shape[:-1])
    return F.embedding(places.long(), tensor(table))


def _places(constants: Mapping[str, Array], makers: Mapping[str, Step], name: str, table: Array | None) -> str | None:
    """The name of the numbers that a value has ones at, along its last axis; None where it is no such value."""
    step = makers.get(name)
    while step is not None and step.node.kind in _SAME:
        step = makers.get(step.inputs[0])
    if step is None or table is None or table.ndim != 2 or table.dtype.kind != "f":
        return None
    if step.node.kind == "Equal":
        for one, other in (step.inputs, step.inputs[::-1]):
            if one not in constants and _counts(constants.get(other), len(table)):
                return one
    if step.node.kind == "OneHot" and step.node.get("axis", -1) == -1:
        depth, values = (constants.get(n) for n in step.inputs[1:3])
        if depth is not None and values is not None and int(depth.reshape(-1)[0]) == len(table):
            return step.inputs[0] if values.reshape(-1).tolist() == [0, 1] else None
    return None


def _wraps(plan: Plan, makers: Mapping[str, Step], step: Step, ids: str) -> bool:
    """Whether a lookup is of numbers that are the ids themselves, for every id that there is a row for.

    Keras and JAX count negative ids from the end, or move those outside to the ends, before they look them up. What is
    computed of the ids is computed here for 0, 1, 2, ..., to find out.
    """
    table = plan.constants.get(step.inputs[0])
    if table is None or table.ndim != 2 or table.dtype.kind != "f" or step.node.get("axis", 0) != 0:
        return False
    if step.inputs[1] in (ids, *plan.constants) or _is_of(makers, step.inputs[1], ids):
        return False
    every = torch.arange(len(table), dtype=torch.int64)[:, None]
    found = _of_each(plan, makers, step.inputs[1], {ids: every})
    return isinstance(found, Tensor) and found.shape == every.shape and torch.equal(found.long(), every)


def _of_each(plan: Plan, makers: Mapping[str, Step], name: str, values: dict[str, Any]) -> Any:
    """A value that is computed entry by entry; None where it is not."""
    if name in values:
        return values[name]
    if (constant := plan.constants.get(name)) is not None:
        values[name] = torch.from_numpy(np.array(constant)) if constant.size == 1 else None
        return values[name]
    step = makers.get(name)
    values[name] = None
    if step is None or step.node.kind not in _EACH or step.node.domain or step.branches or step.repeated:
        return None
    given = [_of_each(plan, makers, one, values) if one else None for one in step.inputs]
    if any(value is None and one for value, one in zip(given, step.inputs, strict=True)):
        return None
    values[name] = tensor(OPERATORS[step.node.kind](step.node, *given))
    return values[name]


_EACH = {
    "Add", "Sub", "Mul", "Neg", "Abs", "Mod", "Min", "Max", "Clip", "Cast", "Identity", "Where", "And", "Or", "Not",
    "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal",
}  # fmt: skip
"""Operators that make each entry of one entry."""


def _counts(array: Array | None, count: int) -> bool:
    """Whether an array holds 0, 1, 2, ... along its last axis, and nothing along others."""
    if array is None or array.ndim == 0 or array.shape[-1] != count or array.size != count:
        return False
    return bool(np.array_equal(array.reshape(-1), np.arange(count)))


def _is_of(makers: Mapping[str, Step], name: str, ids: str) -> bool:
    """Whether a value is that of an input, laid out in another way at most."""
    while name != ids:
        step = makers.get(name)
        if step is None or step.node.kind not in _SAME_IDS or step.node.domain:
            return False
        if step.node.kind == "Cast" and step.node.get("to") not in _WHOLE:
            return False
        name = step.inputs[0]
    return True
