"""`as_strided` as torch's exporter writes it: all values laid one behind the other, and looked up at computed places.

As a lookup it would mix samples. Where the places of a sample all lie within it, it is a choice of its values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxpullback.importer.numbers import Array, Known
from fxpullback.importer.operators.table import OPERATORS
from fxpullback.importer.site import Node
from fxpullback.importer.steps import Plan, Step

Places = Callable[[int], Array]
_TRIED = (2, 3)
"""Batches for which places are computed: what is alike in both is so in all, as places are sums of counted numbers."""


def strided(plan: Plan) -> Plan:
    """A plan in which values of each sample are chosen among its own, where they were looked up among all samples'.

    Args:
        plan: what is run.
    """
    makers = {name: step for step in plan.steps for name in step.outputs if name}
    steps = []
    for step in plan.steps:
        found = _found(plan.constants, makers, step)
        if found is not None:
            source, limit, places, count = found
            step = replace(step, inputs=(*step.inputs, source, limit), operator=_choice(places, count))
        steps.append(step)
    return replace(plan, steps=steps)


def _found(
    constants: Mapping[str, Array], makers: Mapping[str, Step], step: Step
) -> tuple[str, str, Array, int] | None:
    """What was laid out, the number of samples, the places in one, and how many values it has; None if not so."""
    if step.node.kind != "Gather" or step.node.domain or step.node.get("axis", 0) != 0:
        return None
    flat = makers.get(step.inputs[0])
    if flat is None or flat.node.kind != "Reshape" or not _is_flat(flat.node):
        return None
    limits = set[str]()
    places = _places(constants, makers, step.inputs[1], limits)
    if places is None or len(limits) != 1:
        return None
    within = _within(places)
    return None if within is None else (flat.inputs[0], limits.pop(), *within)


def _is_flat(node: Node) -> bool:
    sizes = node.constant(1)
    return sizes is not None and sizes.tolist() == [-1]


def _within(places: Places) -> tuple[Array, int] | None:
    """The places within a sample, and how many values one has; None where samples are not told apart."""
    two, three = (places(n) for n in _TRIED)
    if two.shape[:1] != (2,) or three.shape != (3, *two.shape[1:]) or not three.size:
        return None
    apart = np.unique(three[1:] - three[:-1])
    first, count = three[0], int(apart[0])
    alike = len(apart) == 1 and np.array_equal(two, three[:2])
    return (first, count) if alike and first.min() >= 0 and first.max() < count else None


def _places(constants: Mapping[str, Array], makers: Mapping[str, Step], name: str, limits: set[str]) -> Places | None:
    """How places are computed of the number of samples; what that is called is added to `limits`."""
    if name in constants:
        return lambda n: constants[name]
    step = makers.get(name)
    if step is None or step.node.domain:
        return None
    if step.node.kind == "Range":
        start, delta = (constants.get(step.inputs[i]) for i in (0, 2))
        if start is None or delta is None or int(start) != 0 or int(delta) != 1:
            return None
        limits.add(step.inputs[1])
        return np.arange
    compute = _ARITHMETIC.get(step.node.kind)
    given = [_places(constants, makers, i, limits) for i in step.inputs] if compute is not None else []
    if compute is None or any(one is None for one in given):
        return None
    return lambda n: compute(*(one(n) for one in given if one is not None))


def _unsqueezed(x: Array, axes: Array) -> Array:
    rank = x.ndim + axes.size
    return np.expand_dims(x, tuple(int(a) % rank for a in axes.reshape(-1)))


_ARITHMETIC: Mapping[str, Callable[..., Array]] = {
    "Add": np.add,
    "Mul": np.multiply,
    "Unsqueeze": _unsqueezed,
    "Identity": lambda x: x,
}


def _choice(places: Array, count: int) -> Callable[..., Any]:
    """The operator that chooses values of each sample."""

    def choose(node: Node, flat: Any, index: Any, x: Any, limit: Any) -> Any:
        if not isinstance(x, Tensor) or not _is_batch(limit, x) or math.prod(x.shape[1:]) != count:
            return OPERATORS["Gather"](node, flat, index)
        rows, sizes = x.reshape(x.shape[0], count), [x.shape[0], *places.shape]
        chosen = places.reshape(-1).astype(np.int64)
        if not np.array_equal(chosen, np.arange(count)):
            rows = rows.index_select(1, torch.from_numpy(chosen))
        return rows.reshape(sizes)

    return choose


def _is_batch(limit: Any, x: Tensor) -> bool:
    """Whether a number is that of the samples of x."""
    return isinstance(limit, Known) and str(limit.array.reshape(-1)[0]) == str(x.shape[0])
