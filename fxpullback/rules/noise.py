"""The noise that gates are expected under: normal, as in the paper, or logistic.

A rule that takes an expectation has a keyword `noise`; the rule set says which it is given. Not every Phi or sigma is
noise: that of GELU or SiLU is the model's own gate, z g(z), and stays whatever the noise. The softmax of a max-pool and
of `maximum` is the arg-max under Gumbel noise, and stays as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fxpullback.rules import logistic, smoothing

Expectation = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Noise:
    """A distribution of the noise e, by the expectations that rules take; each function of gate inputs x and of T.

    Attributes:
        name: its word in rule sets, ledgers and files.
        above: P(x + T e > 0), the expected step.
        sigmoid: E[sigma(x + T e)].
        slope: E[sigma'(x + T e)].
        below: (x, rate, T): E[exp(rate (x + T e)) 1(x + T e < 0)].
        bell: (x, variance, T, height): height times E[density of N(0, variance) at x + T e].
    """

    name: str
    above: Expectation
    sigmoid: Expectation
    slope: Expectation
    below: Callable[[Tensor, float, float], Tensor]
    bell: Callable[[Tensor, float, float, float], Tensor]


NORMAL = Noise(
    "normal",
    smoothing.normal_above,
    smoothing.expected_sigmoid,
    smoothing.expected_sigmoid_slope,
    smoothing.expected_exponential_below,
    smoothing.normal_bell,
)
LOGISTIC = Noise(
    "logistic",
    logistic.logistic_above,
    logistic.logistic_sigmoid,
    logistic.logistic_slope,
    logistic.logistic_below,
    logistic.logistic_bell,
)
NOISES = {noise.name: noise for noise in (NORMAL, LOGISTIC)}
