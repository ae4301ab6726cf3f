"""Rows of the pointwise gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.graph.ir import aten
from fxpullback.rules import activations as rules
from fxpullback.rules.rule import Rule
from tests.helpers import TOLERANCE, draw
from tests.rules.oracles import Pointwise, expected_slope, logistic, phi, slope_by_autograd
from tests.rules.rows import Row, at

KINKS = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0, 6.0, -6.0]
LARGE = [25.0, -25.0, 1e4, -1e4, 1e30, -1e30]
Z = torch.tensor([*KINKS, *LARGE, *torch.linspace(-4.03, 4.07, 24).tolist()], dtype=torch.float64).reshape(2, 2, 10)
OFF = torch.linspace(-4.03, 7.07, 40, dtype=torch.float64).reshape(2, 2, 10)


def gated(rule: Rule, gate: Pointwise, primal: Pointwise, *arguments: Any, note: str = "") -> Row:
    """A gate f(z) = z g(z) with the adjoint ct * g(z / T); its limit is 1[z > 0]."""
    return Row(
        rule,
        primal,
        lambda x, t: rule(x, *arguments, **at(rule, t)),
        lambda x, ct, t: ct * gate(x / t),
        Z,
        lambda x, ct: ct * (x > 0),
        OFF,
        note,
    )


def smoothed(
    rule: Rule,
    primal: Pointwise,
    *arguments: Any,
    kinks: Sequence[float] = (),
    slope: Pointwise | None = None,
    note: str = "",
    tolerance: float = TOLERANCE,
) -> Row:
    """Another gate f with the adjoint ct * E f'(z + T e); its limit is f'."""
    derivative = slope or slope_by_autograd(primal)
    return Row(
        rule,
        primal,
        lambda x, t: rule(x, *arguments, **at(rule, t)),
        lambda x, ct, t: ct * expected_slope(derivative, x, t, kinks),
        Z,
        lambda x, ct: ct * derivative(x),
        OFF,
        note,
        tolerance,
    )


def _sixth(z: Tensor) -> Tensor:
    """The derivative of hard-sigmoid; torch's own has its 1/6 in float32."""
    return ((z > -3) & (z < 3)).double() / 6


SLOPES = draw(2, seed=9)


def _prelu(z: Tensor, slopes: Tensor, temperature: float) -> Tensor:
    a = slopes.reshape(1, -1, 1)
    return a + (1 - a) * phi(z / temperature)


def prelu(slopes: Tensor, note: str) -> Row:
    a = slopes.reshape(1, -1, 1)
    return Row(
        rules.prelu,
        lambda x: F.prelu(x, slopes.to(x.dtype)),
        lambda x, t: rules.prelu(x, slopes.to(x.dtype), temperature=t),
        lambda x, ct, t: ct * _prelu(x, slopes, t),
        Z,
        lambda x, ct: ct * torch.where(x > 0, 1.0, a.expand_as(x)),
        OFF,
        note,
    )


ROWS = [
    gated(rules.relu, phi, F.relu),
    gated(rules.silu, logistic, F.silu),
    gated(rules.gelu, phi, F.gelu),
    gated(rules.gelu, phi, lambda x: F.gelu(x, approximate="tanh"), "tanh", note="tanh"),
    gated(rules.hardswish, lambda z: ((z + 3) / 6).clamp(0, 1), F.hardswish),
    gated(rules.mish, lambda z: torch.tanh(torch.logaddexp(z, torch.zeros_like(z))), F.mish),
    gated(rules.hardtanh, phi, F.relu6, 0.0, 6.0, note="relu6"),
    gated(rules.hardtanh, phi, lambda x: F.hardtanh(x, 0.0, 1.5), 0.0, 1.5, note="ceiling"),
    smoothed(rules.hardtanh, F.hardtanh, kinks=[-1, 1]),
    smoothed(rules.hardtanh, lambda x: F.hardtanh(x, -2.0, 0.5), -2.0, 0.5, kinks=[-2, 0.5], note="uneven"),
    smoothed(rules.clamp, lambda x: x.clamp_min(0.5), 0.5, kinks=[0.5], note="clamp_min"),
    smoothed(rules.clamp, lambda x: x.clamp_max(0.5), None, 0.5, kinks=[0.5], note="clamp_max"),
    smoothed(rules.clamp, lambda x: x.clamp(min=-0.5), -0.5, kinks=[-0.5], note="floor"),
    smoothed(rules.clamp, lambda x: x.clamp(max=0.5), None, 0.5, kinks=[0.5], note="ceiling"),
    smoothed(rules.threshold, lambda x: F.threshold(x, 0.5, 2.0), 0.5, 2.0, kinks=[0.5]),
    smoothed(rules.leaky_relu, F.leaky_relu, kinks=[0]),
    smoothed(rules.leaky_relu, lambda x: F.leaky_relu(x, 0.3), 0.3, kinks=[0], note="steep"),
    prelu(SLOPES, "channels"),
    prelu(SLOPES[:1], "one"),
    smoothed(rules.elu, F.elu, kinks=[0]),
    smoothed(rules.elu, lambda x: aten.elu(x, 0.7, 1.3, 0.9), 0.7, 1.3, 0.9, kinks=[0], note="scaled"),
    smoothed(rules.selu, F.selu, kinks=[0]),
    smoothed(rules.celu, lambda x: F.celu(x, 0.5), 0.5, kinks=[0]),
    # torch's derivative jumps by 2e-9 where it takes softplus for linear
    smoothed(rules.softplus, F.softplus, kinks=[20], tolerance=3e-9),
    smoothed(rules.softplus, lambda x: F.softplus(x, 2.0, 40.0), 2.0, 40.0, kinks=[20], note="beta"),
    smoothed(rules.sigmoid, torch.sigmoid),
    smoothed(rules.tanh, torch.tanh),
    smoothed(rules.log_sigmoid, F.logsigmoid),
    smoothed(rules.hardsigmoid, F.hardsigmoid, kinks=[-3, 3], slope=_sixth),
    smoothed(rules.softshrink, F.softshrink, kinks=[-0.5, 0.5]),
    smoothed(rules.hardshrink, lambda x: F.hardshrink(x, 1.0), 1.0, kinks=[-1, 1]),
    smoothed(rules.erf, torch.erf),
    smoothed(rules.ndtr, torch.special.ndtr),
]
