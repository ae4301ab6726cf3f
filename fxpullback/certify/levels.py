"""Quantised models in two runtimes: what lies halfway between two levels, up to rounding, gets either of them.

By how much results differ then is measured on the graph itself: what each quantiser is given is moved by rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fxpullback.graph.fake_quantized import FAKE_QUANTIZE

ROUNDING = 2.0**-20
"""By how much two ways to sum differ, relative to the largest entry of what they make."""
DRAWS = 4
ROOM = 2.0
MOST = 0.05
"""Logits are never let differ by more: what is computed otherwise than it should be is further off."""


def is_quantised(gm: fx.GraphModule) -> bool:
    """Whether a graph rounds values to levels."""
    return any(node.target is FAKE_QUANTIZE for node in gm.graph.nodes)


def moved(gm: fx.GraphModule, seed: int) -> fx.GraphModule:
    """A graph in which what each quantiser is given is moved by rounding, up or down as it falls."""
    graph = copy.deepcopy(gm.graph)
    for i, node in enumerate(graph.nodes):
        if node.target is FAKE_QUANTIZE:
            node.target = _moving(seed * len(graph.nodes) + i)
    return fx.GraphModule(gm, graph)


def _moving(seed: int) -> Callable[..., Tensor]:
    def fake_quantize(x: Tensor, *settings: Any) -> Tensor:
        signs = torch.randint(2, x.shape, generator=torch.Generator().manual_seed(seed)).to(x) * 2 - 1
        made: Tensor = FAKE_QUANTIZE(x + signs * (x.detach().abs().max() * ROUNDING), *settings)
        return made

    return fake_quantize


def bound(captured: fx.GraphModule, inputs: Sequence[Tensor], usual: float) -> tuple[float, str]:
    """How far logits may be off, relative to the largest, and why.

    Args:
        captured: the captured graph.
        inputs: its inputs.
        usual: what holds where nothing is quantised, and at least.
    """
    if not is_quantised(captured):
        return usual, ""
    with torch.no_grad():
        plain = captured(*inputs)[0]
        others = [moved(captured, seed)(*inputs)[0] for seed in range(DRAWS)]
    off = max(float((one - plain).abs().max()) for one in others) / max(float(plain.abs().max()), 1e-30)
    if ROOM * off <= usual:
        return usual, ""
    why = f"quantised: rounding alone moves the logits by {off:.1e}, as values halfway between two levels get either"
    return min(MOST, ROOM * off), why
