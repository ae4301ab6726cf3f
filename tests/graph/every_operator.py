"""Every operator that a stage puts into a graph, found by looking: and calls of each, on numbers."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from fxpullback import EXACT, REFERENCE, SEMANTIC, Ascent, Double, RuleSet, Soft
from fxpullback.capture import capture
from fxpullback.differentiate import differentiate
from fxpullback.graph.fake_quantized import FAKE_QUANTIZE_MASK
from fxpullback.graph.ir import GETITEM, aten, calls, schema_arguments
from fxpullback.half.autocast import autocast
from fxpullback.half.scale import scale_cotangent
from fxpullback.lower import lower
from fxpullback.lowering.folding import fold
from fxpullback.rewrite import rewrite
from fxpullback.target import TARGETS
from fxpullback.unroll import unroll
from fxpullback.vjp.derive import call_in_schema_order
from tests.helpers import Flat, draw, graph_of
from tests.networks import NETWORKS, SIZE, network
from tests.rules import activations, attention, normalization, pooling, quantisation
from tests.rules.patterns.written_out import CASES
from tests.vjp.groups import Recorder, group
from tests.vjp.rows import GROUPS
from tests.vjp.rows import ROWS as VJP_ROWS

Function = Callable[[Tensor], Any]
WEIGHTS, GRID, HALF = draw(4, 4), draw(1, 4, 4, 2).tanh(), torch.tensor(0.5, dtype=torch.float64)


def _compared(a: Tensor, b: Tensor) -> Tensor:
    """Two values compared in every way, the answers joined."""
    either = ((a > b) & (a >= b)) | ((a < b) & (a <= b))
    found: Tensor = either | torch.logical_and(a != b, torch.logical_not(a == b))
    return found


class PassedOn(torch.autograd.Function):
    """Rounding whose gradient is passed on: a backward that its author wrote."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g


# Operators that models use beside those with rules of their own. Inputs are [batch, 4, 4].
USES: tuple[Function, ...] = (
    lambda x: x * _compared(x, x.flip(1)),
    lambda x: x * torch.bitwise_xor(~(x > 0), torch.logical_or(x > 1, x < -1)),
    lambda x: x * (x > 0).any(1, keepdim=True) * (x > -1).all(1, keepdim=True),
    lambda x: x * torch.where(x > 0, 1.5, 2.0).to(x.dtype),
    lambda x: x.masked_fill(x > 0, HALF),
    lambda x: x + F.embedding((x[:, :, 0] > 0).long(), WEIGHTS),
    lambda x: x.diagonal(0, 1, 2),
    lambda x: torch.select_scatter(x, x[:, 0], 1, 2),
    lambda x: x.tile(1, 2, 1),
    lambda x: torch.pow(x.abs() + 1, x) + torch.pow(2.0, x),
    lambda x: x.prod(1, keepdim=True) + x.cumprod(1),
    lambda x: torch.rsub(x, x.flip(1)),
    lambda x: x * torch.zeros(4) + torch.zeros_like(x),
    lambda x: x * x.argsort(1),
    lambda x: sum(part.double() for part in F.max_pool2d(x[:, None], 2, return_indices=True)),
    lambda x: torch.tensordot(x, WEIGHTS, ([2], [0])),
    lambda x: F.grid_sample(x[:, None], GRID.expand(x.shape[0], 4, 4, 2), align_corners=False),
)


def _by_autograd(x: Tensor) -> Any:
    """Its adjoint comes of torch's autograd, which writes it in operators of its own."""
    return torch.tensordot(x, WEIGHTS, ([2], [0]))


def _joined(functions: list[tuple[Function, tuple[int, ...]]]) -> fx.GraphModule:
    """Functions of `[batch, *sizes]` captured as one model, which gives each its own part of the input."""
    ends = [0, *itertools.accumulate(math.prod(sizes) for _, sizes in functions)]

    def model(x: Tensor) -> Tensor:
        parts = [x[:, start:end] for start, end in itertools.pairwise(ends)]
        made = [Flat(f)(part.reshape(-1, *sizes)) for (f, sizes), part in zip(functions, parts, strict=True)]
        return torch.cat(made, 1)

    return graph_of(model, ends[-1])


@functools.cache
def authored() -> fx.GraphModule:
    """A backward that a model's author wrote, captured."""
    return _joined([(lambda x: x + PassedOn.apply(x), (4, 4))])


@functools.cache
def uses() -> fx.GraphModule:
    """`USES`, captured."""
    return _joined([(use, (4, 4)) for use in USES])


@functools.cache
def gates() -> fx.GraphModule:
    """Every gate that the tests of the rules know, whole or written out."""
    rows = [*activations.ROWS, *pooling.ROWS, *attention.ROWS, *normalization.ROWS, *quantisation.ROWS]
    whole = [(row.primal, tuple(row.x.shape[1:] or row.x.shape)) for row in rows]
    return _joined([*whole, *((case.model, case.sizes) for case in CASES)])


def _stages(captured: fx.GraphModule, rules: RuleSet) -> list[fx.GraphModule]:
    """A captured graph and what the stages make of it, the lowered pullback last."""
    rewritten = rewrite(captured, rules)[0]
    folded = fold(rewritten)[0]
    differentiated = differentiate(folded)
    return [captured, rewritten, folded, differentiated, lower(differentiated)[0]]


@functools.cache
def graphs() -> tuple[fx.GraphModule, ...]:
    """Graphs of every stage, of everything that the tests capture for other purposes too."""
    found = [uses(), authored(), *_stages(graph_of(_by_autograd, 4, 4), EXACT)]
    for name in GROUPS:
        whole = group(name)
        found += [whole.captured, whole.differentiated, whole.lowered]
    for rules in (SEMANTIC, REFERENCE):
        found += _stages(gates(), rules)
    for name in NETWORKS:
        stages = _stages(capture(network(name).float(), torch.zeros(2, *SIZE)), SEMANTIC)
        found += stages
        for program in (Soft(), Double(2.0), Ascent(2, 5.0, eps=1.0)):
            found += [unroll(stages[-1], program, target) for target in TARGETS]
        half = autocast(stages[-1], torch.float16)
        found += [half, scale_cotangent(half, 8.0, any_size=True)]
    return tuple(found)


@functools.cache
def operators() -> frozenset[Any]:
    """Every operator in any of those graphs, but for Python's own on sizes."""
    targets = {node.target for gm in graphs() for node in calls(gm.graph)}
    return frozenset(t for t in targets if t is GETITEM or isinstance(t, torch._ops.OpOverload))


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an operator, its arguments in schema order."""

    operator: Any
    arguments: tuple[Any, ...]

    def __call__(self, *changed: Any) -> Any:
        """The result, of the call's own arguments or of others."""
        arguments = changed or self.arguments
        if self.operator is GETITEM:
            return arguments[0][arguments[1]]
        return call_in_schema_order(self.operator, list(arguments))


# What the graphs above do not call with numbers that show everything.
BY_HAND: tuple[tuple[Any, ...], ...] = (
    (aten.mm.default, draw(3, 4), draw(4, 5)),
    (aten.sum.default, draw(3, 4), None),
    (aten.mean.default, draw(3, 4), None),
    (aten.clone.default, draw(3, 4), None),
    (aten.add.Scalar, draw(3, 4), 2.5, 1),
    (aten.sub.Scalar, draw(3, 4), 2.5, 1),
    (FAKE_QUANTIZE_MASK, draw(3, 4), HALF, HALF * 4, -1, 0, 3, False),
    (FAKE_QUANTIZE_MASK, draw(3, 4), HALF, HALF * 4, -1, 0, 3, True),
)
MOST = 16  # calls of one operator in one graph


@functools.cache
def calls_of() -> dict[Any, list[Call]]:
    """Calls by operator, on the numbers that a graph hands them."""
    found: dict[Any, list[Call]] = {}
    for name in GROUPS:
        whole = group(name)
        _record(whole.captured, found, whole.x)
        _record(whole.lowered, found, whole.x, whole.ct)
    _record(uses(), found, draw(3, 16 * len(USES), seed=2))
    _record(authored(), found, draw(3, 16, seed=2))
    for row in VJP_ROWS:
        if not row.captured:
            _record(fx.symbolic_trace(row.function), found, row.values(draw(3, *row.sizes)))
    for target, *arguments in BY_HAND:
        found.setdefault(target, []).append(Call(target, tuple(arguments)))
    return found


def _record(gm: fx.GraphModule, found: dict[Any, list[Call]], *inputs: Tensor) -> None:
    recorder = Recorder(gm)
    with torch.no_grad():
        recorder.run(*inputs)
    before = {target: len(made) for target, made in found.items()}
    for node in calls(gm.graph):
        made = found.setdefault(node.target, [])
        indexed = node.target is GETITEM and not isinstance(node.args[1], int)  # by slices, outside any capture
        if indexed or isinstance(recorder.values[node], int) or len(made) - before.get(node.target, 0) >= MOST:
            continue
        made.append(Call(node.target, fx.map_arg(schema_arguments(node), lambda n: recorder.values[n])))
