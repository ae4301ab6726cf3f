"""Which masks are known to leave something of every row."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.graph.ir import aten, calls, node_argument
from fxpullback.lowering.attention import surely_finite
from tests.helpers import draw, graph_of

INFINITY = float("inf")
PLACES = torch.tensor([1, 0, 3, 3])

MADE: dict[str, tuple[bool, Callable[[Tensor], Tensor]]] = {
    "itself": (True, lambda w: w),
    "laid out anew": (True, lambda w: w.flip(0).roll(1, 1).transpose(0, 1)),
    "joined": (True, lambda w: torch.cat([w[:2], w[2:]]) + torch.stack([w[0], w[1], w[2], w[3]])),
    "looked up": (True, lambda w: w[:, PLACES] + w.index_select(1, PLACES)),
    "triangle": (True, lambda w: w.tril()),
    "added and taken away": (True, lambda w: w + w - w.flip(0)),
    "an infinite number added": (False, lambda w: w + -INFINITY),
    "taken from an infinite number": (False, lambda w: INFINITY - w),
    "an infinite factor in a sum": (False, lambda w: torch.add(w, w, alpha=INFINITY)),
    "infinite padding": (False, lambda w: F.pad(w[:, 1:], [1, 0], value=-INFINITY)),
    "filled": (False, lambda w: w.masked_fill(w > 0, -INFINITY)),
    "a product": (False, lambda w: w * 1e300),
    "a root": (False, lambda w: w.rsqrt()),
}


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_of_finite_constants(name: str) -> None:
    finite, make = MADE[name]
    constant = draw(4, 4)
    gm = graph_of(lambda x: x * make(constant), 4, 4)
    (product,) = [node for node in calls(gm.graph) if node.target is aten.mul.Tensor][-1:]
    assert surely_finite(gm, node_argument(product, 1)) is finite


def test_a_constant_with_an_infinite_entry() -> None:
    constant = draw(4, 4)
    constant[0, 0] = -INFINITY
    gm = graph_of(lambda x: x * constant.flip(0), 4, 4)
    (product,) = [node for node in calls(gm.graph) if node.target is aten.mul.Tensor]
    assert not surely_finite(gm, node_argument(product, 1))
