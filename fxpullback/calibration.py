"""Calibrated temperatures: one constant for each gate, `T = spread * std(z)` of that gate's input over some pictures.

Rescaling a ReLU network from layer to layer leaves its function alone and yet changes a pullback of fixed temperatures;
with calibrated ones it does not. Max-pool takes half the spread; attention keeps its temperature.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from fxpullback.capture import Model, capture
from fxpullback.contract.errors import InputError, RuleError
from fxpullback.extensions import Extension, Extensions
from fxpullback.graph.inputs import Inputs, arguments, extra_of
from fxpullback.graph.ir import extra_inputs, input_nodes
from fxpullback.rules import SEMANTIC, RuleSet
from fxpullback.rules.decision import Decision, decide

Batch = Tensor | Sequence[Tensor]


def calibrate(
    model: Model,
    pictures: Tensor | Iterable[Batch],
    *,
    rules: RuleSet = SEMANTIC,
    spread: float = 0.9,
    extensions: Sequence[Extension] = (),
) -> RuleSet:
    """Find a temperature for every gate of a model.

    Args:
        model: what `compile` takes.
        pictures: inputs `[n, ...]` of the kind the model will see, or batches of them; 16 are plenty. For a model that
            takes more than one input a batch is a tuple of them, as in `calibrate(model, [(x, mask)])`.
        rules: the rule set to calibrate; a temperature it was given by hand stays.
        spread: temperature of a gate in standard deviations of its input.
        extensions: what `compile` will be given beside the package's own rules.

    Returns:
        The rule set with its temperatures gate by gate; compile the same model with it.

    Raises:
        InputError: no pictures, or pictures with NaN or infinite values, or batches unlike the first.
        RuleError: `spread` is not a positive number.
    """
    if not isinstance(spread, int | float) or not 0 < spread < math.inf:
        raise RuleError(f"spread is {spread!r}; give a positive number, such as 0.9.")
    batches, further = _batches(pictures), Extensions.of(extensions)
    rules = further.rule_set(rules)
    captured = capture(model, batches[0][0], batches[0][1:])
    decisions = decide(captured.graph, replace(rules, calibrated={}), further.vjp_table(), further.operators())
    gates = {node: d for node, d in decisions.items() if d.rule is not None and rules.calibrates(d.rule)}
    moments = _Moments(captured, {_gate_input(node, decision) for node, decision in gates.items()})
    for batch in batches:
        for part in _parts(captured, batch):
            moments.run(*part)
    temperatures = {
        node.name: _temperature(moments.deviation(_gate_input(node, decision)), decision, spread)
        for node, decision in gates.items()
    }
    return replace(rules, calibrated=temperatures)


def _batches(pictures: Tensor | Iterable[Batch]) -> list[tuple[Tensor, ...]]:
    """The batches, each with its extras, the pictures first."""
    given: list[Any] = [pictures] if isinstance(pictures, Tensor) else list(pictures)
    batches = [(batch,) if isinstance(batch, Tensor) else tuple(batch) for batch in given]
    if not batches or any(not batch or batch[0].ndim < 2 or batch[0].shape[0] == 0 for batch in batches):
        raise InputError("there are no calibration pictures; pass a tensor [n, ...] with at least one.")
    if not all(bool(torch.isfinite(batch[0]).all()) for batch in batches):
        raise InputError("a calibration picture holds NaN or infinite values.")
    if len({len(batch) for batch in batches}) > 1:
        raise InputError(
            "calibration batches hold different numbers of inputs; each is a tuple of all the model takes."
        )
    return batches


def _parts(captured: fx.GraphModule, batch: tuple[Tensor, ...]) -> Iterator[Inputs]:
    """A batch, four samples at a time."""
    x, *given = batch
    extras = [extra_of(node, value) for node, value in zip(extra_inputs(captured), given, strict=True)]
    held = arguments(extras, given, {}, x.shape[0])
    inputs = Inputs(x, held, tuple(extra.batched for extra in extras))
    return (inputs[start : start + 4] for start in range(0, x.shape[0], 4))


def _gate_input(node: fx.Node, decision: Decision) -> fx.Node:
    """The node whose values a gate selects by."""
    if decision.match is not None:
        found: fx.Node = decision.match.arguments["x"]
        return found
    return input_nodes(node)[0]


def _temperature(deviation: float, decision: Decision, spread: float) -> float:
    share = decision.rule.spread if decision.rule is not None else None
    assert share is not None
    assert decision.temperature is not None
    return spread * share * deviation if deviation > 0 else decision.temperature


class _Moments(fx.Interpreter):
    """Runs a captured graph and gathers the first two moments of some of its nodes, in float64."""

    def __init__(self, gm: fx.GraphModule, watched: set[fx.Node]) -> None:
        super().__init__(gm)
        self.watched = watched
        self.sums: dict[fx.Node, tuple[float, float, float]] = {}

    def run(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return super().run(*args, **kwargs)

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self.watched:
            wide = result.double()
            count, total, squares = self.sums.get(n, (0.0, 0.0, 0.0))
            here = (count + wide.numel(), total + float(wide.sum()), squares + float((wide * wide).sum()))
            self.sums[n] = here
        return result

    def deviation(self, node: fx.Node) -> float:
        """Standard deviation over all pictures and positions."""
        count, total, squares = self.sums[node]
        return math.sqrt(max(squares / count - (total / count) ** 2, 0.0))
