"""Rules for pointwise gates.

`z` is the gate's input, `Phi` the standard normal CDF, `sigma` the logistic function, `e` standard normal noise, T the
temperature and `sg` stop-gradient. A gate `f(z) = z g(z)` is softened as `z * sg[g(z/T)]`; any other pointwise gate as
`z * sg[E f'(z + T e)]`. Source: arXiv 2507.22832 for ReLU, SiLU and GELU; the others follow its principle.

The docstrings say what normal noise gives. Under logistic noise every `Phi(u / T)` that is an expected step reads
`sigma(1.702 u / T)`, and the other expectations are those of `logistic.py`; `Phi` and `sigma` of GELU and SiLU are the
model's own gates and stay.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.graph.ir import aten, stop_gradient
from fxpullback.rules.noise import NORMAL, Noise
from fxpullback.rules.rule import gate
from fxpullback.rules.smoothing import normal_cdf


@gate(aten.relu.default, temperature=0.6)
def relu(x: Tensor, *, temperature: float, noise: Noise = NORMAL) -> Tensor:
    """ReLU with the expected gate.

    Primal:  max(x, 0)
    Adjoint: ct * Phi(x / T)
    Limit:   T -> 0 gives 1[x > 0]
    """
    return x * stop_gradient(noise.above(x, temperature))


@gate(aten.silu.default, temperature=1.6)
def silu(x: Tensor, *, temperature: float) -> Tensor:
    """SiLU (swish): its gate with the input divided by T.

    Primal:  x sigma(x)
    Adjoint: ct * sigma(x / T)
    Limit:   T = 1 gives its own gate, T -> 0 gives 1[x > 0]
    """
    return x * stop_gradient(torch.sigmoid(x / temperature))


@gate(aten.gelu.default, temperature=1.0)
def gelu(x: Tensor, approximate: str = "none", *, temperature: float) -> Tensor:
    """GELU, erf and tanh forms: both get the normal CDF.

    Primal:  x Phi(x), or its tanh approximation
    Adjoint: ct * Phi(x / T)
    Limit:   T = 1 gives its own gate, T -> 0 gives 1[x > 0]
    """
    return x * stop_gradient(normal_cdf(x / temperature))


@gate(aten.hardswish.default, temperature=1.0)
def hardswish(x: Tensor, *, temperature: float) -> Tensor:
    """Hard-swish.

    Primal:  x hardsigmoid(x)
    Adjoint: ct * hardsigmoid(x / T)
    Limit:   T = 1 gives its own gate, T -> 0 gives 1[x > 0]
    """
    return x * stop_gradient(aten.hardsigmoid(x / temperature))


@gate(aten.mish.default, temperature=1.0)
def mish(x: Tensor, *, temperature: float) -> Tensor:
    """Mish.

    Primal:  x tanh(softplus(x))
    Adjoint: ct * tanh(softplus(x / T))
    Limit:   T = 1 gives its own gate, T -> 0 gives 1[x > 0]
    """
    return x * stop_gradient(torch.tanh(F.softplus(x / temperature)))


@gate(aten.hardtanh.default, temperature=0.6)
def hardtanh(x: Tensor, low: float = -1.0, high: float = 1.0, *, temperature: float, noise: Noise = NORMAL) -> Tensor:
    """ReLU6 and every ReLU with a ceiling (low = 0), and hard-tanh.

    Primal:  min(max(x, low), high)
    Adjoint: if low = 0, ct * Phi(x / T): the ceiling lets the cotangent through, as a saturated feature is present;
             else ct * (Phi((x - low) / T) - Phi((x - high) / T))
    Limit:   T -> 0 gives 1[x > 0], or 1[low < x < high]
    """
    if low == 0:
        return x * stop_gradient(noise.above(x, temperature))
    inside = noise.above(x - low, temperature) - noise.above(x - high, temperature)
    return x * stop_gradient(inside)


@gate(aten.clamp.default, temperature=0.6)
def clamp(
    x: Tensor, low: float | None = None, high: float | None = None, *, temperature: float, noise: Noise = NORMAL
) -> Tensor:
    """A floor other than zero, or a ceiling alone; both at once are `hardtanh`.

    Primal:  max(x, low), or min(x, high)
    Adjoint: ct * Phi((x - low) / T), or ct * Phi((high - x) / T)
    Limit:   T -> 0 gives 1[x > low], or 1[x < high]
    """
    inside = (x - low) if low is not None else (high - x)  # type: ignore[operator]
    return x * stop_gradient(noise.above(inside, temperature))


@gate(aten.threshold.default, temperature=0.6)
def threshold(x: Tensor, at: float, value: float, *, temperature: float, noise: Noise = NORMAL) -> Tensor:
    """x above a threshold, a constant below.

    Primal:  x if x > at else value
    Adjoint: ct * Phi((x - at) / T)
    Limit:   T -> 0 gives 1[x > at]
    """
    return x * stop_gradient(noise.above(x - at, temperature))


@gate(aten.leaky_relu.default, temperature=0.6)
def leaky_relu(x: Tensor, slope: float = 0.01, *, temperature: float, noise: Noise = NORMAL) -> Tensor:
    """Leaky ReLU with slope a.

    Primal:  max(x, 0) + a min(x, 0)
    Adjoint: ct * (a + (1 - a) Phi(x / T))
    Limit:   T -> 0 gives a + (1 - a) 1[x > 0]
    """
    return x * stop_gradient(slope + (1 - slope) * noise.above(x, temperature))


@gate(aten.prelu.default, temperature=0.6)
def prelu(x: Tensor, slope: Tensor, *, temperature: float, noise: Noise = NORMAL) -> Tensor:
    """Leaky ReLU with one learnt slope for each channel (dimension 1), or one for all.

    Primal:  max(x, 0) + a min(x, 0)
    Adjoint: ct * (a + (1 - a) Phi(x / T))
    Limit:   T -> 0 gives a + (1 - a) 1[x > 0]
    """
    a = slope if slope.shape[0] == 1 else slope.reshape([-1] + [1] * (x.ndim - 2))
    return x * stop_gradient(a + (1 - a) * noise.above(x, temperature))


@gate(aten.elu.default, temperature=0.6)
def elu(
    x: Tensor,
    alpha: float = 1.0,
    scale: float = 1.0,
    input_scale: float = 1.0,
    *,
    temperature: float,
    noise: Noise = NORMAL,
) -> Tensor:
    """ELU.

    Primal:  scale * (max(x, 0) + alpha * (exp(k min(x, 0)) - 1)), k = input_scale
    Adjoint: ct * scale * (Phi(x / T) + alpha k E[exp(k (x + T e)) 1(x + T e < 0)])
    Limit:   T -> 0 gives the derivative of ELU
    """
    below = noise.below(x, input_scale, temperature) * (alpha * input_scale)
    return x * stop_gradient((noise.above(x, temperature) + below) * scale)


@gate(aten.selu.default, temperature=0.6)
def selu(x: Tensor, *, temperature: float, noise: Noise = NORMAL) -> Tensor:
    """SELU: ELU with alpha = 1.6733 and scale = 1.0507 (Klambauer et al. 2017).

    Primal:  scale * (max(x, 0) + alpha * (exp(min(x, 0)) - 1))
    Adjoint: ct * scale * (Phi(x / T) + alpha E[exp(x + T e) 1(x + T e < 0)])
    Limit:   T -> 0 gives the derivative of SELU
    """
    expression: Tensor = elu.soft(x, 1.6732632423543772, 1.0507009873554805, 1.0, temperature=temperature, noise=noise)
    return expression


@gate(aten.celu.default, temperature=0.6)
def celu(x: Tensor, alpha: float = 1.0, *, temperature: float, noise: Noise = NORMAL) -> Tensor:
    """CELU: its slope below zero is exp(x / alpha).

    Primal:  max(x, 0) + min(0, alpha (exp(x / alpha) - 1))
    Adjoint: ct * (Phi(x / T) + E[exp((x + T e) / alpha) 1(x + T e < 0)])
    Limit:   T -> 0 gives the derivative of CELU
    """
    below = noise.below(x, 1 / alpha, temperature)
    return x * stop_gradient(noise.above(x, temperature) + below)


@gate(aten.softplus.default, temperature=0.6)
def softplus(
    x: Tensor, beta: float = 1.0, linear_above: float = 20.0, *, temperature: float, noise: Noise = NORMAL
) -> Tensor:
    """Softplus.

    Primal:  log(1 + exp(beta x)) / beta
    Adjoint: ct * E[sigma(beta (x + T e))]
    Limit:   T -> 0 gives sigma(beta x)
    """
    return x * stop_gradient(noise.sigmoid(x * beta, temperature * beta))


@gate(aten.sigmoid.default, temperature=0.6)
def sigmoid(x: Tensor, *, temperature: float, noise: Noise = NORMAL) -> Tensor:
    """A sigmoid that is not a factor of a gated product.

    Primal:  sigma(x)
    Adjoint: ct * E[sigma'(x + T e)]
    Limit:   T -> 0 gives sigma'(x)
    """
    return x * stop_gradient(noise.slope(x, temperature))


@gate(aten.tanh.default, temperature=0.6)
def tanh(x: Tensor, *, temperature: float, noise: Noise = NORMAL) -> Tensor:
    """Tanh.

    Primal:  tanh(x)
    Adjoint: ct * E[1 - tanh(x + T e)^2]
    Limit:   T -> 0 gives 1 - tanh(x)^2
    """
    return x * stop_gradient(noise.slope(x * 2, temperature * 2) * 4)


@gate(aten.log_sigmoid.default, temperature=0.6)
def log_sigmoid(x: Tensor, *, temperature: float, noise: Noise = NORMAL) -> Tensor:
    """Logarithm of the sigmoid.

    Primal:  log sigma(x)
    Adjoint: ct * E[sigma(-(x + T e))]
    Limit:   T -> 0 gives sigma(-x)
    """
    return x * stop_gradient(noise.sigmoid(-x, temperature))


@gate(aten.hardsigmoid.default, temperature=0.6)
def hardsigmoid(x: Tensor, *, temperature: float, noise: Noise = NORMAL) -> Tensor:
    """A hard sigmoid that is not a factor of a gated product.

    Primal:  min(max(x + 3, 0), 6) / 6
    Adjoint: ct * (Phi((x + 3) / T) - Phi((x - 3) / T)) / 6
    Limit:   T -> 0 gives 1[-3 < x < 3] / 6
    """
    inside = noise.above(x + 3, temperature) - noise.above(x - 3, temperature)
    return x * stop_gradient(inside / 6)


@gate(aten.softshrink.default, temperature=0.6)
def softshrink(x: Tensor, width: float = 0.5, *, temperature: float, noise: Noise = NORMAL) -> Tensor:
    """Soft shrinkage.

    Primal:  sign(x) max(|x| - width, 0)
    Adjoint: ct * (Phi((x - width) / T) + Phi(-(x + width) / T))
    Limit:   T -> 0 gives 1[|x| > width]
    """
    above, below = noise.above(x - width, temperature), noise.above(-(x + width), temperature)
    return x * stop_gradient(above + below)


@gate(aten.hardshrink.default, temperature=0.6)
def hardshrink(x: Tensor, width: float = 0.5, *, temperature: float, noise: Noise = NORMAL) -> Tensor:
    """Hard shrinkage; the jumps at +-width carry no cotangent, as in the exact derivative.

    Primal:  x if |x| > width else 0
    Adjoint: ct * (Phi((x - width) / T) + Phi(-(x + width) / T))
    Limit:   T -> 0 gives 1[|x| > width]
    """
    above, below = noise.above(x - width, temperature), noise.above(-(x + width), temperature)
    return x * stop_gradient(above + below)


@gate(aten.erf.default, temperature=0.6)
def erf(x: Tensor, *, temperature: float, noise: Noise = NORMAL) -> Tensor:
    """The error function where it is not part of a hand-written GELU.

    Primal:  erf(x)
    Adjoint: ct * 2 / sqrt(pi (1 + 2 T^2)) exp(-x^2 / (1 + 2 T^2))
    Limit:   T -> 0 gives 2 / sqrt(pi) exp(-x^2)
    """
    return x * stop_gradient(noise.bell(x, 0.5, temperature, 2.0))


@gate(aten.special_ndtr.default, temperature=0.6)
def ndtr(x: Tensor, *, temperature: float, noise: Noise = NORMAL) -> Tensor:
    """The normal distribution function as a gate of its own, such as a probit head.

    Primal:  Phi(x)
    Adjoint: ct * exp(-x^2 / (2 (1 + T^2))) / sqrt(2 pi (1 + T^2))
    Limit:   T -> 0 gives the normal density
    """
    return x * stop_gradient(noise.bell(x, 1.0, temperature, 1.0))


ACTIVATIONS = (
    relu,
    silu,
    gelu,
    hardswish,
    mish,
    hardtanh,
    clamp,
    threshold,
    leaky_relu,
    prelu,
    elu,
    selu,
    celu,
    softplus,
    sigmoid,
    tanh,
    log_sigmoid,
    hardsigmoid,
    softshrink,
    hardshrink,
    erf,
    ndtr,
)
