"""A model run as it is, with what its ids are looked up as given: autograd then has a derivative by it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fxpullback.graph.entry import Entry, Part
from fxpullback.graph.inputs import Inputs
from fxpullback.graph.ir import aten

Held = tuple[Tensor, Tensor, Tensor]  # a table, the ids, and what they are looked up as


def passed_by(entry: Entry, given: Inputs) -> tuple[tuple[Tensor, ...], AbstractContextManager[Any]]:
    """What a model is passed so that its explained values are those of a batch, and what its lookups are run in.

    Args:
        entry: what stands in front of the graph of the model.
        given: a batch of the graph.
    """
    passed, held = list(given.extras), list[Held]()
    for i, (part, value) in enumerate(zip(entry.parts, entry.apart(given.x), strict=True)):
        if part.tables:
            held += _lookups(part, passed[i], value)
        else:
            passed[i] = value
    return tuple(passed), _Given(held) if held else nullcontext()


def _lookups(part: Part, ids: Tensor, value: Tensor) -> list[Held]:
    found, start = list[Held](), 0
    for table in part.tables.values():
        found.append((table, ids, value[..., start : start + table.shape[1]]))
        start += int(table.shape[1])
    return found


class _Given(TorchFunctionMode):
    """Gives what was held where a model looks those ids up in those tables."""

    def __init__(self, held: Sequence[Held]) -> None:
        super().__init__()
        self.held = held

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        looked_up = _arguments(func, args, named)
        for table, ids, value in self.held if looked_up is not None else ():
            assert looked_up is not None
            order = _order(looked_up[1], ids) if _same(looked_up[0], table) else None
            if order is not None:
                return value.to(looked_up[0].dtype).permute([*order, ids.ndim]) * 1
        return func(*args, **named)


def _arguments(func: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
    """Table and ids of a call that looks something up; None for any other call."""
    if func is F.embedding:
        first, second = ("input", "weight")
    elif func in (torch.embedding, aten.embedding.default):
        first, second = ("weight", "input") if func is torch.embedding else ("weight", "indices")
    else:
        return None
    one = args[0] if args else named[first]
    other = args[1] if len(args) > 1 else named[second]
    return (other, one) if func is F.embedding else (one, other)


def _order(looked_up: Tensor, ids: Tensor) -> tuple[int, ...] | None:
    """The order of the axes in which ids are looked up; None where those are others."""
    if looked_up.ndim != ids.ndim or looked_up.numel() != ids.numel():
        return None
    orders = itertools.permutations(range(ids.ndim))  # as they come first
    return next((o for o in orders if torch.equal(looked_up, ids.permute(o))), None)


def _same(held: Tensor, table: Tensor) -> bool:
    """Whether a table is the one that was captured, in whatever type it is held now."""
    return held.shape == table.shape and torch.equal(held.detach().to(table.dtype), table)
