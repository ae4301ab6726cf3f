"""Calibrated temperatures: one constant for each gate, `T = spread * std(z)` of that gate's input over some samples.

Rescaling a ReLU network from layer to layer leaves its function alone and yet changes a pullback of fixed temperatures;
with calibrated ones it does not. Max-pool takes half the spread; attention keeps its temperature.

The samples are pictures; without any, noise with the spectrum of pictures; and for an input that is no picture, the
examples given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from fxpullback import picture_noise
from fxpullback.capture import Model, capture
from fxpullback.capture.program import as_program, examples_of
from fxpullback.contract.errors import InputError
from fxpullback.extensions import Extension, Extensions
from fxpullback.graph.inputs import Inputs, arguments, extra_of, given_examples
from fxpullback.graph.ir import extra_inputs, input_nodes
from fxpullback.graph.modes import plain_mode
from fxpullback.graph.operators import OPERATORS, OperatorTable
from fxpullback.rules import SEMANTIC, RuleSet
from fxpullback.rules.decision import Decision, decide
from fxpullback.rules.ruleset import SPREAD
from fxpullback.vjp import TABLE, VJPTable

Batch = Tensor | Sequence[Tensor]
Samples = tuple[list[tuple[Tensor, ...]], Mapping[str, Any]]
"""Batches, each with its extras; and what a rule set says of them under `calibrated_on`."""


@plain_mode()
def calibrate(
    model: Model,
    pictures: Tensor | Iterable[Batch] | None = None,
    *,
    example_inputs: tuple[Tensor, ...] | Mapping[str, Tensor] | Tensor | None = None,
    rules: RuleSet = SEMANTIC,
    spread: float = SPREAD,
    extensions: Sequence[Extension] = (),
) -> RuleSet:
    """Find a temperature for every gate of a model, which `compile` does by itself where it is given no rules.

    Args:
        model: what `compile` takes.
        pictures: inputs `[n, ...]` of the kind the model will see, or batches of them; 16 are plenty. For a model that
            takes more than one input a batch is a tuple of them, as in `calibrate(model, [(x, mask)])`.
        example_inputs: without pictures, what `compile` takes; an exported program has its own. Where the first is a
            picture (`picture_noise.is_picture`), 16 samples of noise with the spectrum of pictures are drawn at its
            shape, and extras are the examples' own rows over again. Where it is none, the examples are used as they
            are; and where those are constant, every rule keeps its own temperature.
        rules: the rule set to calibrate; a temperature it was given by hand stays.
        spread: temperature of a gate in standard deviations of its input.
        extensions: what `compile` will be given beside the package's own rules.

    Returns:
        The rule set with its temperatures gate by gate, and with what they were calibrated on; compile the same model
        with it.

    Raises:
        InputError: neither pictures nor examples, or both; no pictures, or pictures with NaN or infinite values, or
            batches unlike the first.
        RuleError: `spread` is not a positive number.
    """
    further = Extensions.of(extensions)
    rules = further.rule_set(rules).with_spread(spread)
    tables = further.vjp_table(), further.operators()
    if pictures is not None:
        if example_inputs is not None:
            raise InputError("calibrate takes pictures, or example_inputs for noise of their shape; leave out one.")
        batches = _batches(pictures)
        captured = capture(model, batches[0][0], batches[0][1:])
        told = {"kind": "pictures", "samples": sum(batch[0].shape[0] for batch in batches)}
        return calibrated(captured, rules, (batches, told), *tables)
    model = as_program(model)
    names, examples = given_examples(examples_of(model) if example_inputs is None else example_inputs)
    captured = capture(model, examples[0], examples[1:], names)
    return calibrated(captured, rules, without_pictures(captured, examples), *tables)


def calibrated(
    captured: fx.GraphModule,
    rules: RuleSet,
    samples: Samples,
    vjps: VJPTable = TABLE,
    operators: OperatorTable = OPERATORS,
) -> RuleSet:
    """The rule set with a temperature for every gate of a captured graph.

    Args:
        captured: what `capture` returns.
        rules: a rule set with a spread.
        samples: what to run the graph on.
        vjps: the VJP rules, which say what is linear.
        operators: what is true of every operator.
    """
    batches, told = samples
    spread = SPREAD if rules.spread is None else rules.spread
    decisions = decide(captured.graph, replace(rules, calibrated={}), vjps, operators) if batches else {}
    gates = {node: d for node, d in decisions.items() if d.rule is not None and rules.calibrates(d.rule)}
    moments = _Moments(captured, {_gate_input(node, decision) for node, decision in gates.items()})
    for batch in batches if gates else ():
        for part in _parts(captured, batch):
            moments.run(*part)
    temperatures = {
        node.name: _temperature(moments.deviation(_gate_input(node, decision)), decision, spread)
        for node, decision in gates.items()
    }
    return replace(rules, calibrated=temperatures, calibrated_on=told)


def without_pictures(captured: fx.GraphModule, examples: Sequence[Tensor]) -> Samples:
    """Noise at the shape of the example where that is a picture; else the examples, unless they are constant."""
    x, *extras = examples
    if picture_noise.is_picture(x):
        noise = picture_noise.picture_noise(x.shape[1:]).to(x)
        rows = [_repeated(node, extra, len(noise)) for node, extra in zip(extra_inputs(captured), extras, strict=True)]
        return [(noise, *rows)], picture_noise.described()
    if not bool(torch.isfinite(x).all()):
        return [], {"kind": "none", "why": "the example inputs hold NaN or infinite values"}
    if bool((x == x.flatten()[0]).all()):
        return [], {"kind": "none", "why": "the example inputs are constant"}
    return [tuple(examples)], {"kind": "examples", "samples": x.shape[0]}


def _repeated(node: fx.Node, extra: Tensor, count: int) -> Tensor:
    """An extra for a batch of `count`: its example's own rows, over again."""
    return extra[torch.arange(count, device=extra.device) % len(extra)] if extra_of(node, extra).batched else extra


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
    held = arguments(extras, given, {}, x)
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
            # a padding of -inf in front of a max-pool, or of the lowest number there is, says nothing of the scale
            wide = result.double()
            wide = wide[wide.abs() < (torch.finfo(result.dtype).max / 2 if result.is_floating_point() else math.inf)]
            count, total, squares = self.sums.get(n, (0.0, 0.0, 0.0))
            here = (count + wide.numel(), total + float(wide.sum()), squares + float((wide * wide).sum()))
            self.sums[n] = here
        return result

    def deviation(self, node: fx.Node) -> float:
        """Standard deviation over all samples and positions."""
        count, total, squares = self.sums[node]
        if not count:
            return 0.0
        return math.sqrt(max(squares / count - (total / count) ** 2, 0.0))
