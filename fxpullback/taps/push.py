"""Biases carried back as contributions: what a layer's constants add, at the places where they add it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from fxpullback.graph.ir import GETITEM, ORIGIN, arg, aten, calls, node_argument
from fxpullback.graph.shapes import same_shape
from fxpullback.parts.additive import ADDITIVE
from fxpullback.parts.carrying import carrying
from fxpullback.taps.choose import Values
from fxpullback.taps.plan import Plan
from fxpullback.taps.spread import spread_over

JOINING = {aten.cat.default, aten.stack.default, aten.slice_scatter.default}
"""What these add stands beside what they are given, and keeps to the number."""


@dataclass(frozen=True)
class Push:
    """An operator whose constants add something at places of a grid.

    Attributes:
        node: its name in the graph that is differentiated.
        plan: how a constant times a cotangent becomes a map on its own grid.
        grid: the grid that the map is put on.
    """

    node: str
    plan: Plan
    grid: tuple[int, ...]

    def __call__(self, constant: Any, cotangent: Any) -> Any:
        """The map `[batch, *grid]`.

        Args:
            constant: what is added, broadcast to the cotangent; a number, a tensor or a value of a graph.
            cotangent: that of the operator's result.
        """
        return spread_over(self.plan(constant, cotangent), self.grid)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a file carries them."""
        return {"node": self.node, "plan": self.plan.to_dict(), "grid": list(self.grid)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Push:
        """Read back what `to_dict` wrote."""
        return cls(data["node"], Plan.from_dict(data["plan"]), tuple(data["grid"]))


def pushes_of(folded: fx.GraphModule, values: Values, grid: tuple[int | None, ...]) -> tuple[Push, ...]:
    """Every operator that adds a constant to a value whose axes are known, on a grid of as many axes as the taps'.

    Args:
        folded: the graph that is differentiated.
        values: what is known of the captured graph it was made of.
        grid: the grid of `contribution`.
    """
    known = tuple(extent for extent in grid if extent is not None)
    if len(known) < len(grid):
        return ()
    plans = {_maker(node).name: (plan, node.meta["val"]) for node, plan in values.plans.items()}
    carried = carrying(folded.graph)
    found = []
    for node in calls(folded.graph):
        origin, value = str(node.meta.get(ORIGIN)), node.meta["val"]
        adds = node in carried and node.target in ADDITIVE and node.target not in JOINING
        if origin not in plans or not adds or not isinstance(value, Tensor):
            continue
        plan, like = plans[origin]
        if same_shape(value.shape, like.shape) and None not in plan.grid and len(plan.grid) == len(known):
            found.append(Push(node.name, plan, known))
    return tuple(found)


def _maker(node: fx.Node) -> fx.Node:
    """The operator that a value is of: of the first of several results, as of a layer norm, the norm itself."""
    return node_argument(node, 0) if node.target is GETITEM and arg(node, 1) == 0 else node
