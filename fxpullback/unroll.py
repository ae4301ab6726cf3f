"""Stage 5: programs. Double pullback and ascent are unrolled into copies of the one pullback graph.

`p(x, u)` is the soft pullback at x of the cotangent u, `n(v) = v / max(|v|_2, 1e-20)` over all axes but the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import fx

from fxpullback.errors import ProgramError
from fxpullback.ir import ORIGIN, OUTPUT_NAMES, STEP, outputs, placeholders
from fxpullback.target import Target, cotangent_of, target_input
from fxpullback.trace import Builder, Value


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


def unroll(step: fx.GraphModule, program: Program, target: Target) -> fx.GraphModule:
    """Put target and program around the pullback graph.

    Args:
        step: graph (input, cotangent) -> (logits, pullback).
        program: `Soft`, `Double` or `Ascent`.
        target: what the input `target` holds.

    Returns:
        Graph (input[, target]) -> (logits, pullback[, counterfactual, counterfactual_logits]).
    """
    builder = Builder(step)
    source, _ = placeholders(step.graph)
    x = builder.placeholder("input", source.meta["val"])
    given = target_input(builder, target, outputs(step.graph)[0].meta["val"])

    def cotangent(logits: Value) -> Value:
        with builder.provenance("cotangent", **{ORIGIN: "target"}):
            result: Value = cotangent_of(target, given, logits)
            return result

    results = _RUN[type(program)](_Steps(builder, step), x, cotangent, program)
    gm = builder.finish(tuple(results.values()))
    gm.meta[OUTPUT_NAMES] = tuple(results)
    gm.graph.eliminate_dead_code()
    gm.recompile()
    return gm


class _Steps:
    """Appends copies of the pullback graph."""

    def __init__(self, builder: Builder, step: fx.GraphModule) -> None:
        self.builder, self.step = builder, step
        self.count = 0

    def __call__(self, x: Value, cotangent: Callable[[Value], Value] | Value) -> tuple[Value, Value, Value]:
        """(logits, pullback, cotangent) at x; a cotangent not made yet is made of the logits."""
        source, seed = placeholders(self.step.graph)
        logits, pullback = outputs(self.step.graph)
        self.count += 1
        env: dict[fx.Node, Any] = {source: x}
        if isinstance(cotangent, Value):
            env[seed] = cotangent
        for node in self.step.graph.nodes:
            if node.op in ("placeholder", "output"):
                continue
            env[node] = self._copy(node, env)
            if node is logits and seed not in env:
                env[seed] = cotangent(env[logits])  # type: ignore[operator]
        return env[logits], env[pullback], env[seed]

    def _copy(self, node: fx.Node, env: dict[fx.Node, Any]) -> Any:
        name = node.name if self.count == 1 else f"{node.name}_step{self.count}"
        return self.builder.copy(node, env, name, **{STEP: self.count})


Outputs = dict[str, Value]


def _soft(steps: _Steps, x: Value, cotangent: Callable[[Value], Value], program: Soft) -> Outputs:
    logits, pullback, _ = steps(x, cotangent)
    return {"logits": logits, "pullback": pullback}


def _double(steps: _Steps, x: Value, cotangent: Callable[[Value], Value], program: Double) -> Outputs:
    logits, first, u = steps(x, cotangent)
    with steps.builder.provenance("moved", **{ORIGIN: "program"}):
        moved = x + normalised(first) * program.alpha
    return {"logits": logits, "pullback": steps(moved, u)[1]}


def _ascent(steps: _Steps, x: Value, cotangent: Callable[[Value], Value], program: Ascent) -> Outputs:
    here, u, first = x, None, None
    for k in range(program.steps):
        logits, pullback, u = steps(here, cotangent if u is None else u)
        first = logits if first is None else first
        with steps.builder.provenance(f"ascent_{k + 1}", **{ORIGIN: "program"}):
            here = _clip(_ball(here + normalised(pullback) * program.alpha, x, program.eps), program, k)
    assert first is not None and u is not None
    final, _, _ = steps(here, u)
    with steps.builder.provenance("displacement", **{ORIGIN: "program"}):
        displacement = here - x
    names = ("logits", "pullback", "counterfactual", "counterfactual_logits")
    return dict(zip(names, (first, displacement, here, final), strict=True))


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


_RUN: dict[type, Callable[..., Outputs]] = {Soft: _soft, Double: _double, Ascent: _ascent}
