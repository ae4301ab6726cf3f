"""Which operators stay in float32: by their traits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fxpullback.graph.inputs import Inputs
from fxpullback.graph.ir import aten, calls, operator_name
from fxpullback.graph.operators import OPERATORS, OperatorTable
from fxpullback.half.autocast import in_half_precision
from fxpullback.half.islands import float32_nodes
from tests.half.test_autocast import compiled, off, types, wanted
from tests.helpers import draw

EPS = torch.finfo(torch.float16).eps


class Between(nn.Module):
    """A function between two convolutions."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Linear(4, 5)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.second(self.function(self.first(x))).mean((2, 3)))
        return result


NARROW: dict[str, tuple[Any, Callable[[Tensor], Tensor]]] = {
    "triangle": (aten.tril.default, lambda z: z.tril()),
    "looked up": (aten.index.Tensor, lambda z: z[:, :, torch.arange(7, -1, -1)]),
    "gathered": (aten.gather.default, lambda z: z.gather(3, (z > 0).long())),
    "windows": (aten.unfold.default, lambda z: z.unfold(3, 2, 3).flatten(3)),
    "mirrored": (aten.pad.default, lambda z: F.pad(z, [1, 1, 1, 1], mode="reflect")),
    "written over": (aten.slice_scatter.default, lambda z: torch.slice_scatter(z, z[:, 2:] * 2, 1, 0, 2)),
    "repeated": (aten.upsample_nearest1d.vec, lambda z: F.interpolate(z[..., 0], scale_factor=2)[..., None]),
    "masked": (aten.masked_fill.Scalar, lambda z: z.masked_fill(z > 0.5, 0.5)),
    "compared twice": (aten.gt.Scalar, lambda z: z * ((z > 0) & (z < 1))),
    "rounded": (aten.floor.default, lambda z: z + z.floor()),
}


@pytest.mark.parametrize("name", NARROW)
def test_moves_and_plain_arithmetic_are_no_islands(name: str) -> None:
    operator, function = NARROW[name]
    pb = compiled(Between(function), 3, 8, 8)
    graph = in_half_precision(pb, "fp16").graph
    assert types(graph, operator) == {torch.float16}
    x, given = draw(3, 3, 8, 8, seed=5, dtype=torch.float32), torch.tensor([0, 1, 2])
    exact = wanted(pb, Inputs(x), given)
    for found, output in zip(graph(x, given), pb.output_names, strict=True):
        assert off(found, exact[output]) < 8 * EPS


def test_what_is_computed_of_a_statistic_is_in_float32() -> None:
    pb = compiled(Between(lambda z: z / (z.std(1, keepdim=True) + 1e-3)), 3, 8, 8)
    assert types(in_half_precision(pb, "fp16").graph, aten.std.correction, aten.add.Tensor) == {torch.float32}


def test_an_operator_that_nothing_is_known_of_is_an_island_and_so_is_what_is_computed_of_it() -> None:
    step = compiled(Between(lambda z: z.flip(3).abs()), 3, 8, 8).step
    fewer = OperatorTable({o: traits for o, traits in OPERATORS.rows.items() if o is not aten.flip.default})

    def wide(operators: OperatorTable) -> set[str]:
        found = float32_nodes(step, torch.float16, operators)
        return {operator_name(node.target) for node in calls(step.graph) if node in found}

    of_flip = {"aten.flip", "aten.abs"}
    assert not of_flip & wide(OPERATORS)
    assert of_flip <= wide(fewer)
