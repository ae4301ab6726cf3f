"""Rules for products with a computed gate, and for gates that a model writes out by hand."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fxpullback.graph.ir import stop_gradient
from fxpullback.rules.activations import leaky_relu, relu, softshrink
from fxpullback.rules.noise import NORMAL, Noise
from fxpullback.rules.rule import gate


@gate(verdict="frozen")
def gated_product(x: Tensor, gate_value: Tensor) -> Tensor:
    """A product with the output of sigmoid, hard-sigmoid, tanh or softmax: squeeze-excite, GLU, CBAM.

    Primal:  x * gate
    Adjoint: ct * gate, to x alone
    """
    return x * stop_gradient(gate_value)


@gate(temperature=1.0)
def self_gated(x: Tensor, gate_of: Callable[[Tensor], Tensor], scale: float = 1.0, *, temperature: float) -> Tensor:
    """A gate z g(z) written out as a product (quick-GELU, hand-written hard-swish, mish, GELU).

    Primal:  x g(x), where g = scale * gate_of
    Adjoint: ct * g(x / T)
    Limit:   T = 1 gives its own gate
    """
    return x * stop_gradient(gate_of(x / temperature) * scale)


@gate(temperature=1.6, known_as="silu")
def silu_by_hand(x: Tensor, gate_of: Callable[[Tensor], Tensor], scale: float = 1.0, *, temperature: float) -> Tensor:
    """SiLU written out as x * sigmoid(x): what `silu` does.

    Primal:  x sigma(x)
    Adjoint: ct * sigma(x / T)
    Limit:   T = 1 gives its own gate
    """
    return x * stop_gradient(gate_of(x / temperature) * scale)


@gate(temperature=0.6, known_as="relu")
def relu_by_hand(x: Tensor, slope: float, *, temperature: float, noise: Noise = NORMAL) -> Tensor:
    """ReLU or leaky ReLU written as a choice or a product: `where(x > 0, x, a x)`, `x * (x > 0)`.

    Primal:  x where x > 0, else a x
    Adjoint: ct * (a + (1 - a) Phi(x / T))
    Limit:   T -> 0 gives a + (1 - a) 1[x > 0]
    """
    if not slope:
        return relu.soft(x, temperature=temperature, noise=noise)
    return leaky_relu.soft(x, slope, temperature=temperature, noise=noise)


@gate(temperature=0.6, known_as="softshrink")
def shrink_by_hand(x: Tensor, width: float, *, temperature: float, noise: Noise = NORMAL) -> Tensor:
    """Hard or soft shrinkage written as a choice by |x| > width.

    Primal:  x, or x - sign(x) width, where |x| > width, else 0
    Adjoint: ct * (Phi((x - width) / T) + Phi(-(x + width) / T))
    Limit:   T -> 0 gives 1[|x| > width]
    """
    return softshrink.soft(x, width, temperature=temperature, noise=noise)
