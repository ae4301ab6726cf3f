"""The rows of a group captured as one model, differentiated and lowered: capturing each alone would take minutes."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from fxpullback.differentiate import differentiate
from fxpullback.graph import invariants
from fxpullback.graph.ir import INJECT, calls
from fxpullback.lower import lower
from tests.helpers import Flat, draw, graph_of
from tests.vjp.rows import GROUPS

BATCH = 3  # the capture sees a batch of two


@dataclass(frozen=True)
class Group:
    """What a group of rows computes, at a batch size that its capture never saw."""

    captured: fx.GraphModule
    differentiated: fx.GraphModule
    lowered: fx.GraphModule
    x: Tensor
    ct: Tensor
    runs: tuple[tuple[Tensor, Tensor], ...]  # (logits, pullback) of the differentiated and of the lowered graph
    places: dict[str, tuple[slice, slice]]  # where each row has its input and its output


@functools.cache
def group(name: str) -> Group:
    """Capture the rows of a group as one model, differentiate, lower and run it."""
    rows = [row for row in GROUPS[name] if row.captured]
    places, taken, made = {}, 0, 0
    for row in rows:
        size = math.prod(row.sizes)
        result = Flat(row.function)(row.values(draw(BATCH, *row.sizes)))
        places[row.name] = (slice(taken, taken + size), slice(made, made + result.shape[1]))
        taken, made = taken + size, made + result.shape[1]

    def all_rows(x: Tensor) -> Tensor:
        parts = [x[:, places[row.name][0]].reshape(-1, *row.sizes) for row in rows]
        return torch.cat([Flat(row.function)(part) for row, part in zip(rows, parts, strict=True)], 1)

    captured = graph_of(all_rows, taken)
    differentiated = differentiate(captured)
    invariants.check_differentiated(differentiated, sum(n.target is INJECT for n in calls(captured.graph)))
    lowered, _ = lower(differentiated)
    invariants.check_lowered(lowered)
    x = torch.cat([row.values(draw(BATCH, *row.sizes)).reshape(BATCH, -1) for row in rows], 1)
    ct = draw(BATCH, made, seed=5)
    runs = (differentiated(x, ct), lowered(x, ct))
    return Group(captured, differentiated, lowered, x, ct, runs, places)


class Recorder(fx.Interpreter):
    """Runs a graph and keeps what it computed."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.values[n] = result
        return result
