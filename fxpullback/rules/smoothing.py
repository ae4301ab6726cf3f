"""Expectations under Gaussian noise, the mathematics that the rules share; `logistic.py` has other noise."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from fxpullback.graph.ir import aten, constant_like


def normal_cdf(x: Tensor) -> Tensor:
    """Phi(x), the standard normal cumulative distribution, elementwise."""
    result: Tensor = aten.special_ndtr.default(x)
    return result


def normal_above(x: Tensor, temperature: float) -> Tensor:
    """P(x + T e > 0) = Phi(x / T), e standard normal."""
    return normal_cdf(x / temperature)


def normal_bell(x: Tensor, variance: float, temperature: float, height: float) -> Tensor:
    """height times E[density of N(0, variance) at x + T e]: the density of N(0, variance + T^2)."""
    wide = variance + temperature**2
    return torch.exp(x * x * (-0.5 / wide)) * (height / math.sqrt(2 * math.pi * wide))


@functools.cache
def logistic_scales() -> tuple[Tensor, Tensor]:
    """Deviations and weights of normal distributions whose mixture is the standard logistic distribution.

    The deviation is 2 K with K of the Kolmogorov distribution (Stefanski, Statistics & Probability Letters 11, 1991).
    Its density is summed over 24 values of log K: the mixture is the logistic distribution within 1e-12.
    """
    logarithms = torch.linspace(math.log(0.16), math.log(4.5), 24, dtype=torch.float64)
    k = torch.exp(logarithms)
    return 2 * k, _kolmogorov_density(k) * k * (logarithms[1] - logarithms[0])


def _kolmogorov_density(k: Tensor) -> Tensor:
    """The density at k > 0. It has two series: one is used for small k, the other for large k."""
    small, large = torch.zeros_like(k), torch.zeros_like(k)
    for n in range(1, 21):
        c = ((2 * n - 1) * math.pi) ** 2 / 8
        small = small + torch.exp(-c / k**2) * (2 * c / k**4 - 1 / k**2) * math.sqrt(2 * math.pi)
        large = large - (-1) ** n * 8 * n * n * k * torch.exp(-2 * (n * k) ** 2)
    return torch.where(k < 0.7, small, large)


def _mixture(x: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """The logistic mixture after noise of scale T is added to it; its deviations grow to sqrt(deviation^2 + T^2).

    Returns:
        x / deviations `[..., 24]`, the weights `[24]`, and the weighted densities at zero `[24]`.
    """
    deviations, weights = logistic_scales()
    deviations = torch.sqrt(deviations**2 + temperature**2)
    heights = weights / deviations * (1 / math.sqrt(2 * math.pi))
    inverse, weight, height = (constant_like(d, x) for d in (torch.reciprocal(deviations), weights, heights))
    return x.unsqueeze(-1) * inverse, weight, height


def expected_sigmoid(x: Tensor, temperature: float) -> Tensor:
    """E[sigma(x + T e)], e standard normal, within 1e-12 for every T.

    Args:
        x: gate inputs, any shape.
        temperature: T, the noise scale, zero or more.

    Returns:
        A tensor of the shape of x.
    """
    scaled, weight, _ = _mixture(x, temperature)
    return torch.matmul(normal_cdf(scaled), weight)


def expected_sigmoid_slope(x: Tensor, temperature: float) -> Tensor:
    """E[sigma'(x + T e)], e standard normal, within 1e-12 for every T.

    Args:
        x: gate inputs, any shape.
        temperature: T, the noise scale, zero or more.

    Returns:
        A tensor of the shape of x.
    """
    scaled, _, height = _mixture(x, temperature)
    return torch.matmul(torch.exp(scaled * scaled * -0.5), height)


def expected_exponential_below(x: Tensor, rate: float, temperature: float) -> Tensor:
    """E[exp(rate (x + T e)) 1(x + T e < 0)], e standard normal, for every T above zero.

    The closed form is exp(rate x + (rate T)^2 / 2) Phi(-u), u = x / T + rate T. It loses all digits where u is large.
    From u = 2 on, the same value is computed as exp(-(x / T)^2 / 2) h(u), h(u) = exp(u^2 / 2) Phi(-u).

    h(u) is erfcx(y) / 2 with y = u / sqrt(2). The trapezoid rule is used for
    erfcx(y) = y / pi * integral of exp(-t^2) / (t^2 + y^2). It is good to 1e-12 from y = sqrt(2) on.

    Args:
        x: gate inputs, any shape.
        rate: factor in the exponent, above zero.
        temperature: T, the noise scale.

    Returns:
        A tensor of the shape of x.
    """
    u = x * (1 / temperature) + rate * temperature
    exponent = (u * (rate * temperature) - (rate * temperature) ** 2 / 2).clamp(max=2 * rate * temperature)
    near = torch.exp(exponent) * normal_cdf(-u)
    y = (u * (1 / math.sqrt(2))).clamp(min=1.0, max=1e4)
    step = 0.3
    squares = [(n * step) ** 2 for n in range(21)]
    weights = [(1 if n == 0 else 2) * math.exp(-square) * step / (2 * math.pi) for n, square in enumerate(squares)]
    places = constant_like(torch.tensor(squares, dtype=torch.float64), x)
    density = constant_like(torch.tensor(weights, dtype=torch.float64), x)
    scaled_tail = torch.matmul(torch.reciprocal((y * y).unsqueeze(-1) + places), density) * y
    far = torch.exp(x * x * (-0.5 / temperature**2)) * scaled_tail
    return torch.where(u < 2.0, near, far)
