"""A value that is held without its factor, and one call of the graph whose factors are carried along."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import fx

from fxpullback.graph.builder import Builder
from fxpullback.graph.ir import (
    aten,
    attribute,
    depends_on,
    is_float_tensor,
    outputs,
    placeholders,
    schema_arguments,
)
from fxpullback.graph.operators import OPERATORS
from fxpullback.graph.rebuild import Carried, Site, same
from fxpullback.graph.value import Value

SMALL = 4096  # constants of up to so many entries are computed, larger ones stay expressions of the model's own


class Carrier:
    """What is known of the graph while its factors are carried along.

    Attributes:
        source: the graph before.
        results: its outputs.
        variable: its nodes that depend on an input.
        wishes: the factor that some of its values had best have.
        taken: how many weights took a factor in so far.
    """

    def __init__(self, source: fx.GraphModule, wishes: dict[fx.Node, float]) -> None:
        self.source = source
        self.results = set(outputs(source.graph))
        self.variable = depends_on(source.graph, placeholders(source.graph))
        self.wishes = wishes
        self.taken = 0
        self._made: dict[Any, Any] = {}

    def scaled(self, builder: Builder, name: str, factor: float) -> Value:
        """A constant times a number, as a constant."""
        if (name, factor) not in self._made:
            old = attribute(self.source, name)
            exact = builder.exact.get(name, old).detach().double() * factor
            made = builder.constant(f"{name}_scaled", exact.to(old.dtype))
            if name not in builder.exact:
                builder.scaled.add(str(made.node.target))
            builder.exact[str(made.node.target)] = exact
            self._made[name, factor] = made
        found: Value = self._made[name, factor]
        return found


@dataclass(frozen=True)
class Call:
    """One call of the graph before, and what stands for its arguments."""

    carrier: Carrier
    site: Site

    @property
    def builder(self) -> Builder:
        """What writes the new graph."""
        return self.site.builder

    @property
    def node(self) -> fx.Node:
        """The call in the graph before."""
        return self.site.node

    @property
    def env(self) -> dict[fx.Node, Any]:
        """What stands for the nodes before it."""
        return self.site.env

    def arguments(self) -> tuple[Any, ...]:
        """The arguments in schema order, nodes as they are."""
        return schema_arguments(self.node)

    def varies(self, n: Any) -> bool:
        """Whether an argument is a tensor that depends on an input."""
        return isinstance(n, fx.Node) and n in self.carrier.variable and is_float_tensor(n)

    def held(self, n: Any) -> Carried:
        """What stands for an argument."""
        found = self.env[n]
        return found if isinstance(found, Carried) else Carried(found, 1.0)

    def plain(self, n: Any, factor: float = 1.0) -> Any:
        """An argument with its factor multiplied out, or with `factor` left of it."""
        held = self.env[n]
        if not isinstance(held, Carried):
            if not isinstance(held, Value) or same(factor, 1.0):
                return held
            held = Carried(held, 1.0)
        return Carried(held.value, held.factor / factor).whole(self.site.made)

    def again(self, values: dict[Any, Any]) -> Any:
        """The same call on other values."""
        return self.site.copy(values)

    def constant(self, n: fx.Node, factor: float) -> Any:
        """A constant times a number; a small one is a new constant, a large one an expression of the old."""
        value = self.env[n]
        if same(factor, 1.0):
            return value
        if n.op == "get_attr" and extent(n) <= SMALL:
            return self.carrier.scaled(self.builder, str(n.target), factor)
        return value * factor

    def weight(self, n: fx.Node, factor: float) -> Any:
        """A weight that takes a factor in."""
        if same(factor, 1.0):
            return self.env[n]
        self.carrier.taken += 1
        return self.env[n] * factor


def extent(node: fx.Node) -> int:
    """Entries of a tensor, axes of a free size counted as one."""
    return math.prod(n for n in node.meta["val"].shape if isinstance(n, int))


def number_of(node: fx.Node) -> float | None:
    """By what number a call multiplies its first argument, where that can be carried on: finite, and not 0."""
    number = -1.0 if node.target is aten.neg.default else OPERATORS.number_of(node)
    return number if number and math.isfinite(number) else None
