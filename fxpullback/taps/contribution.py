"""The contribution: from values and cotangents at taps to one map that sums to a part of the logit.

At a value v with cotangent c the logit's part is <v, c>. Summed over features alone, it says what each place carries.
With the cotangent of the plain gradient this is HiResCAM (Draelos and Carin, arXiv 2011.08891).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import fx

from fxpullback.contract.contribution import CONTRIBUTION, output_of
from fxpullback.contract.errors import TapError
from fxpullback.contract.parts import PARTS, PUSHED
from fxpullback.graph.ir import VALUE_OF, calls
from fxpullback.taps.choose import Chosen
from fxpullback.taps.plan import Plan
from fxpullback.taps.push import Push
from fxpullback.taps.spread import spread_over

SMALL = 1e-12
"""A map whose absolute values sum to less is taken for zero: it has no share in the mean."""


@dataclass(frozen=True)
class Tap:
    """A value whose contribution is read off.

    Attributes:
        name: what it is called.
        operator: name of the captured operator whose value it is.
        node: name of the node that holds it in the graph that is differentiated.
        plan: how value times cotangent becomes a map.
        of: the one of several explained inputs whose places it has; empty where one is explained.
    """

    name: str
    operator: str
    node: str
    plan: Plan
    of: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a file carries them."""
        held = {"name": self.name, "operator": self.operator, "node": self.node, "plan": self.plan.to_dict()}
        return {**held, "of": self.of} if self.of else held

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Tap:
        """Read back what `to_dict` wrote."""
        return cls(data["name"], data["operator"], data["node"], Plan.from_dict(data["plan"]), data.get("of", ""))


@dataclass(frozen=True)
class Taps:
    """The taps of a compilation.

    Attributes:
        taps: where, in the order of the network.
        each: whether every tap's own map is an output besides.
        chosen: `auto`, or `named`.
        parts: whether the parts of the logit are read off as well.
        pushes: where biases are carried back as contributions.
    """

    taps: tuple[Tap, ...] = ()
    each: bool = False
    chosen: str = "auto"
    parts: bool = False
    pushes: tuple[Push, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.taps)

    def __iter__(self) -> Any:
        return iter(self.taps)

    @property
    def grid(self) -> tuple[int | None, ...]:
        """The grid of `contribution`: the finest of the taps'. Of several explained inputs, that of the first."""
        return next(iter(self.grids.values()))

    @property
    def grids(self) -> dict[str, tuple[int | None, ...]]:
        """The grid of the contribution of each explained input, by its name; the empty name where one is explained."""
        found: dict[str, tuple[int | None, ...]] = {}
        for tap in self.taps:
            found[tap.of] = max(found.get(tap.of, ()), tap.plan.grid, key=lambda grid: [extent or 0 for extent in grid])
        return found

    def held_in(self, gm: fx.GraphModule) -> Taps:
        """The same taps by the nodes of another graph of the compilation, the rewritten one; without the parts."""
        holding = _holding(gm)
        taps = tuple(replace(tap, node=holding[tap.operator]) for tap in self.taps)
        return replace(self, taps=taps, parts=False, pushes=())

    def outputs(self, maps: Sequence[Any]) -> dict[str, Any]:
        """The outputs by name, of the maps of the taps.

        Args:
            maps: one `[batch, *grid]` for each tap, then biases and parts if asked for; tensors or values of a graph.
        """
        parts = {PARTS: maps[-1]} if self.parts else {}
        parts = {PUSHED: maps[-2]} | parts if self.pushes else parts
        if not self.taps:
            return parts
        maps = list(maps[: len(self.taps)])
        found = {
            output_of(of) if of else CONTRIBUTION: mean_map(
                [one for tap, one in zip(self.taps, maps, strict=True) if tap.of == of], grid
            )
            for of, grid in self.grids.items()
        }
        own = zip((output_of(tap.name) for tap in self.taps), maps, strict=True)
        return found | (dict(own) if self.each else {}) | parts

    @property
    def read(self) -> tuple[str, ...]:
        """What is read off beside the pullback, by name: the taps, then the parts."""
        return (
            *(f"contribution at {tap.name}" for tap in self.taps),
            *((PUSHED,) if self.pushes else ()),
            *((PARTS,) if self.parts else ()),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a file carries them."""
        taps = [tap.to_dict() for tap in self.taps]
        pushes = [push.to_dict() for push in self.pushes]
        return {"taps": taps, "each": self.each, "chosen": self.chosen, "parts": self.parts, "pushes": pushes}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Taps:
        """Read back what `to_dict` wrote."""
        pushes = tuple(map(Push.from_dict, data.get("pushes", ())))
        taps = tuple(map(Tap.from_dict, data["taps"]))
        return cls(taps, data["each"], data["chosen"], data.get("parts", False), pushes)


def mean_map(maps: Sequence[Any], grid: Sequence[int | None]) -> Any:
    """One map of several.

    Every map is spread over one grid, so that its sum stays; divided by the sum of its absolute values; and averaged.
    The mean is scaled by the harmonic mean of those sums, for every sample: it then sums to a mean of the parts of the
    logit that the maps sum to, weighted as they are in it. A map of zeros has no weight.

    Args:
        maps: `[batch, *extents]`, tensors or values of a graph.
        grid: extents of the result.

    Returns:
        `[batch, *grid]`.
    """
    if len(maps) == 1:
        return maps[0]
    axes = list(range(1, len(grid) + 1))
    spread = maps if None in grid else [spread_over(one, grid) for one in maps]  # free grids are one and the same
    sums = [torch.abs(one).sum(axes, keepdim=True) for one in spread]
    weights = [size / (size * size + SMALL * SMALL) for size in sums]
    total = reduce(lambda a, b: a + b, weights)
    weighed = reduce(lambda a, b: a + b, (one * weight for one, weight in zip(spread, weights, strict=True)))
    return weighed / (total + SMALL)


def found_in(folded: fx.GraphModule, chosen: Sequence[Chosen]) -> tuple[Tap, ...]:
    """The taps, each with the node that holds its value in the graph that is differentiated.

    Raises:
        TapError: no node holds a value any more.
    """
    holding = _holding(folded)
    lost = [one.name for one in chosen if one.node.name not in holding]
    if lost:
        raise TapError(f"no tap at {', '.join(lost)}: folding left no node with its value. Tap the module behind it.")
    taps = [Tap(one.name, one.node.name, holding[one.node.name], one.plan, one.of) for one in chosen]
    return tuple(_distinct(taps))


def _holding(gm: fx.GraphModule) -> dict[str, str]:
    """The node that holds the value of each captured operator."""
    holding: dict[str, str] = {}
    for node in calls(gm.graph):
        holding |= {name: node.name for name, factor in node.meta.get(VALUE_OF, {}).items() if factor == 1.0}
    return holding


def _distinct(taps: Sequence[Tap]) -> list[Tap]:
    """The same taps under names of their own."""
    found: list[Tap] = []
    for tap in taps:
        name, count = tap.name, 1
        while any(other.name == name or other.of == name for other in found) or name == tap.of:
            count += 1
            name = f"{tap.name}_{count}"
        found.append(replace(tap, name=name))
    return found
