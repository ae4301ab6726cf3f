"""What a pattern is: a gate rule, and the function that finds the gate where it is written as several operators."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from fxpullback.contract.errors import RuleError
from fxpullback.graph.ir import where
from fxpullback.rules.patterns.flow import Flow
from fxpullback.rules.rule import Rule, check_operators


@dataclass(frozen=True)
class Match:
    """A gate that was found; its value is that of the node that was looked at, which will be injected.

    Attributes:
        arguments: what the rule takes, by name: captured nodes and plain values. The gate's input is called `x`
            wherever `calibrate` is to find the temperature.
        replays: functions that the rule takes, by name, as (start, end): each computes `end` from another value at
            `start`, by the model's own operators.
    """

    arguments: Mapping[str, Any]
    replays: Mapping[str, tuple[fx.Node, fx.Node]] = field(default_factory=dict)


@dataclass(frozen=True)
class WhyNot:
    """Why a node is no such gate, as the ledger says it.

    Attributes:
        text: a plain sentence without its full stop; `{}` stands for each of the nodes.
        nodes: captured nodes; the sentence names their operators, module paths and source lines.
    """

    text: str
    nodes: tuple[fx.Node, ...] = ()

    @property
    def sentence(self) -> str:
        """The text with its nodes named: `... it comes from aten.exp at head.0 (model.py:12)`."""
        return self.text.format(*map(_named, self.nodes)) if self.nodes else self.text


Find = Callable[[fx.Node, Flow], Match | WhyNot | None]


@dataclass(frozen=True)
class Pattern:
    """A gate written as several operators: what finds it, and the rule it gets.

    Attributes:
        rule: the rule of what is found. Its soft expression takes what the match names.
        find: `(node, flow) -> Match | WhyNot | None`, a function of the captured graph that changes nothing. It is
            asked about each active node that calls one of `at`, and answers with a match, with a sentence why there is
            none, or with None for a node that is not the pattern's business.
        at: the operators it is asked about: those that such a gate ends at, and those that may miss it.
    """

    rule: Rule
    find: Find
    at: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.rule, Rule):
            raise RuleError(f"the rule of a pattern is {self.rule!r}; make one with @gate().")
        if not callable(self.find):
            raise RuleError(f"pattern {self.rule.name}: find is {self.find!r}; give a function (node, flow) -> Match.")
        object.__setattr__(self, "at", tuple(self.at))
        if not self.at:
            raise RuleError(f"pattern {self.rule.name} looks at no operator; name those that such a gate ends at.")
        check_operators(f"pattern {self.rule.name}", self.at)

    def match(self, node: fx.Node, flow: Flow) -> Match | None:
        """The gate that ends at a node, or None.

        Raises:
            RuleError: `find` answered with something else, or with a match that the rule cannot take.
        """
        found = self._look(node, flow)
        return found if isinstance(found, Match) else None

    def why_not(self, node: fx.Node, flow: Flow) -> str | None:
        """Why no gate ends at a node, in a sentence; None where one does and where there is nothing to say."""
        found = self._look(node, flow)
        return found.sentence if isinstance(found, WhyNot) else None

    def _look(self, node: fx.Node, flow: Flow) -> Match | WhyNot | None:
        if node not in flow.active or node.target not in self.at:
            return None
        found = self.find(node, flow)
        if isinstance(found, Match):
            self._check(found, node)
        elif found is not None and not isinstance(found, WhyNot):
            raise RuleError(
                f"pattern {self.rule.name} answered {found!r} for {where(node)}; answer with a Match, a WhyNot or None."
            )
        return found

    def _check(self, match: Match, node: fx.Node) -> None:
        """Refuse a match that the rule's function does not take."""
        rule = self.rule
        given = [*match.arguments, *match.replays, *(["temperature"] if rule.temperature is not None else [])]
        signature = inspect.signature(rule.soft)
        try:
            signature.bind(**dict.fromkeys(given))
        except TypeError as error:
            raise RuleError(
                f"pattern {rule.name}: its match for {where(node)} gives {', '.join(given)}; the rule takes "
                f"{', '.join(signature.parameters)}: {error}."
            ) from error
        if rule.spread is not None and not isinstance(match.arguments.get("x"), fx.Node):
            raise RuleError(
                f"pattern {rule.name}: its match for {where(node)} names no node x, the gate's input, which calibrate "
                "measures. Name it so, or make the rule with spread=None."
            )


def _named(node: fx.Node) -> str:
    return "the input" if node.op == "placeholder" else where(node)
