"""One model that is measured, and how torch itself explains it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

POSITIONS = "positions"
Inputs = dict[str, Tensor]
"""Inputs by name; the first is explained."""


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        spec: `text:CLASS`, `audio:NAME` or `task:NAME`.
        family: what the table groups by.
        build: the model, in evaluation mode, its weights drawn with a fixed seed.
        inputs: of a batch, and of a size where `free_size` is true: `inputs(batch, longer)`.
        options: for `compile`, beside rules.
        explained: where torch's own gradient is taken: the table whose rows are explained; None for the input.
        logits: from what the model returns and the inputs to logits `[batch, classes]`; the mean over `positions` where
            they are at many.
    """

    spec: str
    family: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int, bool], Inputs]
    options: Mapping[str, Any] = field(default_factory=dict)
    explained: Callable[[nn.Module], nn.Module] | None = None
    logits: Callable[[Any, Inputs], Tensor] = lambda result, given: logits_of(result)

    def eager(self, model: nn.Module, given: Inputs, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and their gradient by torch's own autograd through the model as it is.

        Args:
            model: the model, in float64.
            given: inputs by name.
            cotangent: `[batch, classes]`.
        """
        own = {name: value for name, value in given.items() if name != POSITIONS}
        held: list[Tensor] = []
        if self.explained is None:
            first = next(iter(own))
            held.append(own[first].detach().requires_grad_(True))
            result = model(held[0], *list(own.values())[1:])
        else:
            with held_at(self.explained(model), next(iter(own.values())), held):
                result = model(**own)
        logits = self.logits(result, given)
        (gradient,) = torch.autograd.grad(logits, held[0], cotangent)
        return logits.detach(), gradient


@contextmanager
def held_at(table: nn.Module, given: Tensor, held: list[Tensor]) -> Iterator[None]:
    """Have what a table of embeddings looks up, before anything is done with it, made a leaf and put on a list.

    The leaf is `[batch, tokens, dim]`, for a model too that looks the ids up with the batch behind the tokens.
    """
    looked_up = nn.Embedding.forward

    def forward(self: nn.Embedding, ids: Tensor) -> Tensor:
        found = looked_up(self, ids)
        if self.weight is table.weight:
            swapped = not _equal(ids, given) and _equal(ids, given.T)
            held.append((found.transpose(0, 1) if swapped else found).detach().requires_grad_(True))
            return (held[-1].transpose(0, 1) if swapped else held[-1]) * 1
        return found

    nn.Embedding.forward = forward  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        nn.Embedding.forward = looked_up  # type: ignore[method-assign]


def _equal(ids: Tensor, others: Tensor) -> bool:
    return ids.shape == others.shape and torch.equal(ids, others)


class Widened(TorchFunctionMode):
    """Runs a model in float64 throughout: what its code casts to float32 whatever its own type is float64, too."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.float:
            func = Tensor.double
        args, named = tree_map(_wide, (args, dict(kwargs or {})))
        return func(*args, **named)


def _wide(leaf: Any) -> Any:
    return torch.float64 if leaf is torch.float32 else leaf


def logits_of(result: Any) -> Tensor:
    """The logits that a model returns, alone, under that name, or as `out`."""
    if isinstance(result, Tensor):
        return result
    found: Tensor = next(result[name] for name in ("logits", "out") if name in result)
    return found


def at_positions(kind: str | None, logits: Tensor, given: Inputs) -> Tensor:
    """Logits `[batch, classes]` of those at many positions, by torch alone: what the input `positions` names.

    Args:
        kind: "index" for `[batch, positions, classes]`, "mask" for that or for `[batch, classes, height, width]`, or
            None for logits that are `[batch, classes]` already.
        logits: the model's.
        given: the inputs, `positions` among them.
    """
    if kind is None:
        return logits
    places = given[POSITIONS]
    if kind == "index":
        return logits[torch.arange(len(logits)), places]
    values = logits.flatten(2).transpose(1, 2) if logits.ndim == 4 else logits
    weights = places.flatten(1).to(values.dtype)[..., None]
    return (values * weights).sum(1) / weights.sum(1)
