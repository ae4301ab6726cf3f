"""Expectations under logistic noise: what `smoothing.py` has for Gaussian noise.

The noise is e = L / 1.702 with L of the standard logistic distribution, so that P(x + T e > 0) = sigma(1.702 x / T).
With that factor sigma is nearest to Phi, within .0095 everywhere (Camilli 1994); the deviation of e is 1.066. Below,
s = T / 1.702.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from fxpullback.graph.ir import constant_like
from fxpullback.rules.smoothing import logistic_scales

STEEPNESS = 1.702
DEGREE = 18  # of the polynomial below; its error is 2e-13


def logistic_above(x: Tensor, temperature: float) -> Tensor:
    """P(x + T e > 0) = sigma(1.702 x / T)."""
    return torch.sigmoid(x * (STEEPNESS / temperature))


def logistic_sigmoid(x: Tensor, temperature: float) -> Tensor:
    """E[sigma(x + T e)], within 1e-11 for every T.

    It is P(L' < x + s L) of two independent logistic numbers, which has no closed form. The trapezoid rule is used for
    the integral over the density of the narrower one: for s < 1 that of sigma(x + s l), else of sigma((x + l) / s).
    """
    places, weights, width = _nodes(x, temperature)
    return torch.matmul(torch.sigmoid(x.unsqueeze(-1) * (1 / width) + places), weights)


def logistic_slope(x: Tensor, temperature: float) -> Tensor:
    """E[sigma'(x + T e)], within 1e-11 for every T; the derivative of `logistic_sigmoid`."""
    places, weights, width = _nodes(x, temperature)
    inside = torch.sigmoid(x.unsqueeze(-1) * (1 / width) + places)
    return torch.matmul(inside * (1 - inside), weights * (1 / width))


def _nodes(x: Tensor, temperature: float) -> tuple[Tensor, Tensor, float]:
    """Places and weights of the trapezoid rule `[91]`, and what x is divided by."""
    scale, step = temperature / STEEPNESS, 0.6
    l = torch.arange(-45, 46, dtype=torch.float64) * step  # noqa: E741
    density = torch.sigmoid(l) * torch.sigmoid(-l)
    places = l * min(scale, 1 / scale)
    return constant_like(places, x), constant_like(density / density.sum(), x), max(scale, 1.0)


def logistic_below(x: Tensor, rate: float, temperature: float) -> Tensor:
    """E[exp(rate (x + T e)) 1(x + T e < 0)], within 1e-12 for every T above zero.

    With a = rate s it is exp(rate x) times the integral of exp(a l) sigma'(l) up to l = -x / s, an incomplete beta
    function. sigma'(l) is p(z) = z / (1 + z)^2 of z = exp(-|l|), and p a polynomial of degree 18 on [0, 1] with
    coefficients c_n, so that every term is integrated in closed form. With z = exp(-|x| / s):

        x > 0:  sum_n c_n z^n / (n + a)
        x < 0:  sum_n c_n exp(rate x) / (n + a) + sum_n c_n (z^n - exp(rate x)) / (a - n)

    The n nearest to a is taken apart, by a form of its quotient that loses no digits where a - n is small or zero.
    """
    scale = temperature / STEEPNESS
    a, numbers, c = rate * scale, torch.arange(1, DEGREE + 1, dtype=torch.float64), _coefficients()
    nearest = min(max(round(a), 1), DEGREE)
    above = c / (numbers + a)
    others = numbers != nearest
    below = torch.where(others, c / torch.where(others, a - numbers, 1.0), 0.0)
    powers = torch.exp(x.abs().unsqueeze(-1) * constant_like(-numbers / scale, x))
    steps = (-x).clamp(min=0.0) * (1 / scale)
    gap = abs(a - nearest)
    quotient = (torch.exp(steps * -gap) + 1) * torch.tanh(steps * (gap / 2)) * (1 / gap) if gap else steps
    left = torch.exp(steps * -min(a, nearest)) * quotient * float(c[nearest - 1])
    left = left + torch.exp(steps * -a) * float(above.sum() - below.sum())
    left = left + torch.matmul(powers, constant_like(below, x))
    return torch.where(x < 0, left, torch.matmul(powers, constant_like(above, x)))


@functools.cache
def _coefficients() -> Tensor:
    """c_1, ..., c_18 of z / (1 + z)^2 = sum_n c_n z^n on [0, 1], by interpolation at the Chebyshev points."""
    angles = (2 * torch.arange(DEGREE, dtype=torch.float64) + 1) * (math.pi / (2 * DEGREE))
    z = (1 + torch.cos(angles)) / 2
    found: Tensor = torch.linalg.solve(z[:, None] ** torch.arange(DEGREE), 1 / (1 + z) ** 2)
    return found


def logistic_bell(x: Tensor, variance: float, temperature: float, height: float) -> Tensor:
    """height times E[density of N(0, variance) at x + T e], within 1e-12: a mixture of 24 normal densities.

    The logistic distribution is a mixture of normal ones (`smoothing.logistic_scales`); noise widens each.
    """
    deviations, weights = logistic_scales()
    wide = variance + (deviations * (temperature / STEEPNESS)) ** 2
    heights = weights * height / torch.sqrt(2 * math.pi * wide)
    return torch.matmul(torch.exp((x * x).unsqueeze(-1) * constant_like(-0.5 / wide, x)), constant_like(heights, x))
