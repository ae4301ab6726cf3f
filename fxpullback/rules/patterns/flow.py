"""What depends on the explained input in a captured graph: what every matcher asks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from torch import fx

from fxpullback.graph.ir import depends_on, explained, input_nodes, is_float_tensor
from fxpullback.graph.operators import OPERATORS, OperatorTable
from fxpullback.rules.patterns.operators import VOCABULARY, Vocabulary


@dataclass(frozen=True)
class Walk:
    """Where a walk back from a value came.

    Attributes:
        passed: the operators it went through.
        ends: the nodes it was to end at, and did.
        stop: the first node at which it could not go on, or None where every path came to an end.
    """

    passed: frozenset[fx.Node]
    ends: frozenset[fx.Node]
    stop: fx.Node | None


class Flow:
    """What depends on the explained input.

    Attributes:
        reached: the nodes that the explained input reaches; comparisons and indices are among them, sizes are not.
        active: those of them that hold floating-point tensors, so that a cotangent can arrive there.
        operators: what is true of every operator.
        known: the sets of operators that matchers tell apart.
    """

    def __init__(self, graph: fx.Graph, operators: OperatorTable = OPERATORS) -> None:
        self.operators = operators
        self.known = VOCABULARY if operators is OPERATORS else Vocabulary.of(operators)
        self.reached: set[fx.Node] = depends_on(graph, [explained(graph)])
        self.active: set[fx.Node] = {n for n in self.reached if is_float_tensor(n)}

    def is_choice(self, node: fx.Node) -> bool:
        """Whether a comparison or an order of the input's own values decides what the node passes on."""
        return any(n in self.reached and n not in self.active for n in input_nodes(node))

    def active_inputs(self, node: fx.Node) -> list[fx.Node]:
        """The active nodes among a node's arguments, with repeats, in order."""
        return [n for n in input_nodes(node) if n in self.active]

    def only_input(self, node: fx.Node) -> fx.Node | None:
        """The one active node among a node's arguments; None where there are several, or none."""
        found = set(self.active_inputs(node))
        return found.pop() if len(found) == 1 else None

    def two_factors(self, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
        """The first two arguments of a product, a quotient or a difference, where both of them are active."""
        return self.active_pair(node, (0, 1))

    def active_pair(self, node: fx.Node, positions: tuple[int, int]) -> tuple[fx.Node, fx.Node] | None:
        """The arguments at two positions, where both of them are active."""
        a, b = (node.args[i] if i < len(node.args) else None for i in positions)
        if isinstance(a, fx.Node) and isinstance(b, fx.Node) and a in self.active and b in self.active:
            return a, b
        return None

    def back(self, node: fx.Node, through: Collection[Callable[..., Any]]) -> fx.Node:
        """Follow a value back through operators with one active argument.

        Args:
            node: where to begin.
            through: the operators that are passed, as `flow.known.relayout` or `flow.known.affine`.

        Returns:
            The first node that is none of these operators, or has not exactly one active argument.
        """
        while node.target in through:
            before = self.only_input(node)
            if before is None:
                break
            node = before
        return node

    def walk(
        self,
        node: fx.Node,
        through: Collection[Callable[..., Any]],
        until: Callable[[fx.Node], bool],
        limit: int,
    ) -> Walk:
        """Follow a value back along all active arguments.

        `flow.walk(gate, flow.known.pointwise, {x}.__contains__, 14).stop is None` says that `gate` is a pointwise
        function of `x` alone.

        Args:
            node: where to begin.
            through: the operators that are passed.
            until: whether a path ends at a node; asked first.
            limit: the largest number of nodes that are looked at, ends included.

        Returns:
            What was passed, where paths ended, and where the first one broke off.
        """
        passed: set[fx.Node] = set()
        ends: set[fx.Node] = set()
        waiting = [node]
        stop: fx.Node | None = None
        while waiting and stop is None:
            node = waiting.pop()
            if node in passed or node in ends:
                continue
            if len(passed) + len(ends) >= limit:
                stop = node
            elif until(node):
                ends.add(node)
            elif node.target in through:
                passed.add(node)
                waiting += self.active_inputs(node)
            else:
                stop = node
        return Walk(frozenset(passed), frozenset(ends), stop)
