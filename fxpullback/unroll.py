"""Stage 5: programs. Double pullback and ascent are unrolled into copies of the one pullback graph.

`p(x, u)` is the soft pullback at x of the cotangent u, `n(v) = v / max(|v|_2, 1e-20)` over all axes but the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import fx

from fxpullback.contract.errors import ProgramError
from fxpullback.contract.names import INPUT, TARGET
from fxpullback.graph.builder import Builder
from fxpullback.graph.compilation import Compilation
from fxpullback.graph.ir import ORIGIN, STEP, explained, extra_inputs, given_inputs, outputs
from fxpullback.graph.module import Graph, signature_of
from fxpullback.graph.rebuild import Site, append
from fxpullback.graph.value import Value
from fxpullback.taps.contribution import Taps
from fxpullback.target import Target, cotangent_of, target_input

NO_TAPS = Taps()


@dataclass(frozen=True)
class Soft:
    """logits f(x); pullback p(x, u)."""


@dataclass(frozen=True)
class Double:
    """x' = x + alpha n(p(x, u)); logits f(x); pullback p(x', u).

    Attributes:
        alpha: length of the step, in the units of the input; 10 suits pixels in [-1, 1] at 224x224.
    """

    alpha: float = 10.0

    def __post_init__(self) -> None:
        _positive("alpha", self.alpha)


@dataclass(frozen=True)
class Ascent:
    """x_{k+1} = clip(ball(x_k + alpha n(p(x_k, u)))), from x_0 = x, in `steps` steps.

    Attributes:
        steps: number of steps K; 3 for subtle accentuation, 5 to 10 for counterfactuals.
        alpha: length of a step, in the units of the input; 20 suits pixels in [-1, 1] at 224x224.
        clip: smallest and largest value of the input, or None: never clip.
        clip_when: after `every` step, after the `last`, or `never`.
        eps: radius of the ball |x_k - x|_2 <= eps that every step is projected on, or None.
    """

    steps: int = 5
    alpha: float = 20.0
    clip: tuple[float, float] | None = (-1.0, 1.0)
    clip_when: Literal["every", "last", "never"] = "every"
    eps: float | None = None

    def __post_init__(self) -> None:
        _positive("alpha", self.alpha)
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1:
            raise ProgramError(f"steps is {self.steps!r}; give a whole number of at least 1, such as 5.")
        if self.clip_when not in ("every", "last", "never"):
            raise ProgramError(f"clip_when is {self.clip_when!r}; give 'every', 'last' or 'never'.")
        if self.clip is not None and not (len(self.clip) == 2 and self.clip[0] < self.clip[1]):
            raise ProgramError(f"clip is {self.clip!r}; give (smallest, largest), such as (-1.0, 1.0), or None.")
        if self.eps is not None:
            _positive("eps", self.eps)


Program = Soft | Double | Ascent


def _positive(name: str, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ProgramError(f"{name} is {value!r}; give a positive number.")


def describe(program: Program) -> dict[str, Any]:
    """Name and options of a program, as plain values."""
    return {"name": type(program).__name__.lower(), **asdict(program)}


def unroll(
    step: fx.GraphModule,
    program: Program,
    target: Target,
    compilation: Compilation | None = None,
    taps: Taps = NO_TAPS,
) -> Graph:
    """Put target and program around the pullback graph.

    Args:
        step: graph (input, extras, cotangent) -> (logits, pullback, map of each tap).
        program: `Soft`, `Double` or `Ascent`.
        target: what the input `target` holds.
        compilation: what the stages of one compilation share.
        taps: what the maps of the step are of.

    Returns:
        Graph (input, extras[, target]) -> (logits, pullback[, counterfactual, counterfactual_logits][, contribution]).
    """
    builder = Builder(step, compilation)
    x = builder.placeholder(INPUT, explained(step.graph).meta["val"])
    extras = {node: builder.placeholder(str(node.target), node.meta["val"]) for node in extra_inputs(step)}
    given = target_input(builder, target, outputs(step.graph)[0].meta["val"])

    def cotangent(logits: Value) -> Value:
        with builder.provenance("cotangent", **{ORIGIN: "target"}):
            result: Value = cotangent_of(target, given, logits)
            return result

    with builder.provenance("program", **{ORIGIN: "program"}):
        results = run_program(program, _Steps(builder, step, extras), x, cotangent, taps)
    signature = replace(signature_of(step), given=None if given is None else TARGET, outputs=tuple(results))
    gm = builder.finish(tuple(results.values()), signature)
    gm.graph.eliminate_dead_code()
    gm.recompile()
    return gm


class _Steps:
    """Appends copies of the pullback graph; all of them read the same extras."""

    def __init__(self, builder: Builder, step: fx.GraphModule, extras: dict[fx.Node, Value]) -> None:
        self.builder, self.step, self.extras = builder, step, extras
        self.count = 0

    def __call__(self, x: Value, cotangent: Callable[[Value], Value] | Value) -> tuple[Value, ...]:
        """(logits, pullback, cotangent, map of each tap) at x; a cotangent not made yet is made of the logits."""
        source, (entering,) = explained(self.step.graph), given_inputs(self.step)
        logits, pullback, *maps = outputs(self.step.graph)
        self.count += 1
        known = cotangent if isinstance(cotangent, Value) else None
        env: dict[fx.Node, Any] = {source: x, **self.extras, entering: known}

        def again(site: Site) -> Any:
            name = site.node.name if self.count == 1 else f"{site.node.name}_step{self.count}"
            made = site.copy(name=name, meta={STEP: self.count})
            if site.node is logits and env[entering] is None:
                env[entering] = cotangent(made)  # type: ignore[operator]
            return made

        append(self.builder, self.step, env, again, moved=() if self.count == 1 else None)
        return env[logits], env[pullback], env[entering], *(env[one] for one in maps)


Outputs = dict[str, Any]
Step = Callable[[Any, Any], tuple[Any, ...]]
CotangentOf = Callable[[Any], Any]


def run_program(program: Program, step: Step, x: Any, of_logits: CotangentOf, taps: Taps = NO_TAPS) -> Outputs:
    """A program in terms of one pullback step, on graph values or on tensors.

    Args:
        program: which, with its options.
        step: (x, cotangent, or a function that makes it of the logits) -> (logits, pullback, cotangent, *maps).
        x: the input.
        of_logits: makes the cotangent that enters, of the logits.
        taps: what the maps are of.

    Returns:
        The outputs by name, in order.
    """
    results, maps = _RUN[type(program)](step, x, of_logits, program)
    return results | taps.outputs(maps)


def _soft(step: Step, x: Any, of_logits: CotangentOf, program: Soft) -> tuple[Outputs, Sequence[Any]]:
    logits, pullback, _, *maps = step(x, of_logits)
    return {"logits": logits, "pullback": pullback}, maps


def _double(step: Step, x: Any, of_logits: CotangentOf, program: Double) -> tuple[Outputs, Sequence[Any]]:
    """The maps are those of the second pass, as the pullback is."""
    logits, first, u, *_ = step(x, of_logits)
    _, pullback, _, *maps = step(x + normalised(first) * program.alpha, u)
    return {"logits": logits, "pullback": pullback}, maps


def _ascent(step: Step, x: Any, of_logits: CotangentOf, program: Ascent) -> tuple[Outputs, Sequence[Any]]:
    """The maps are those of the input itself: they explain its logits."""
    here, u, first, shown = x, of_logits, None, list[Any]()
    for k in range(program.steps):
        logits, pullback, u, *maps = step(here, u)
        first, shown = (logits, maps) if first is None else (first, shown)
        here = _clip(_ball(here + normalised(pullback) * program.alpha, x, program.eps), program, k)
    names = ("logits", "pullback", "counterfactual", "counterfactual_logits")
    return dict(zip(names, (first, here - x, here, step(here, u)[0]), strict=True)), shown


def length(v: Any) -> Any:
    """|v|_2 of every sample, `[batch, 1, ...]`."""
    return torch.sqrt((v * v).sum(list(range(1, v.ndim)), keepdim=True))


def normalised(v: Any) -> Any:
    """v / max(|v|_2, 1e-20), the norm over all axes but the batch, taken so that no square underflows."""
    largest = torch.amax(torch.abs(v), list(range(1, v.ndim)), True).clamp(min=1e-20)
    return v / (length(v / largest) * largest).clamp(min=1e-20)


def _ball(moved: Any, x: Any, radius: float | None) -> Any:
    """Projection on |moved - x|_2 <= radius."""
    if radius is None:
        return moved
    away = moved - x
    return x + away * torch.reciprocal((length(away) * (1 / radius)).clamp(min=1.0))


def _clip(moved: Any, program: Ascent, k: int) -> Any:
    now = program.clip_when == "every" or (program.clip_when == "last" and k == program.steps - 1)
    if program.clip is None or not now:
        return moved
    return moved.clamp(program.clip[0], program.clip[1])


_RUN: dict[type, Callable[..., tuple[Outputs, Sequence[Any]]]] = {Soft: _soft, Double: _double, Ascent: _ascent}
