"""Independent, slow ways to the numbers that the gate rules compute."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

Pointwise = Callable[[Tensor], Tensor]

_NODES, _WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(24))


def phi(z: Tensor) -> Tensor:
    """Standard normal cumulative distribution."""
    result: Tensor = torch.special.ndtr(z)
    return result


def logistic(z: Tensor) -> Tensor:
    """1 / (1 + exp(-z))."""
    return 1 / (1 + torch.exp(-z))


def slope_by_autograd(f: Pointwise) -> Pointwise:
    """The derivative of a pointwise function, by torch's autograd."""

    def slope(z: Tensor) -> Tensor:
        leaf = z.detach().clone().requires_grad_(True)
        (grad,) = torch.autograd.grad(f(leaf).sum(), leaf)
        return grad

    return slope


def expected_slope(slope: Pointwise, z: Tensor, temperature: float, kinks: Sequence[float] = ()) -> Tensor:
    """E[slope(z + T e)], e standard normal, by Gauss-Legendre on pieces that no kink divides.

    Pieces are a tenth of a deviation wide or narrower than a third of the input's unit, whichever is less, out to 12
    deviations, where the density is 1e-32.
    """
    return torch.stack([_expected_at(slope, float(v), temperature, kinks) for v in z.flatten()]).reshape(z.shape)


def _expected_at(slope: Pointwise, z: float, temperature: float, kinks: Sequence[float]) -> Tensor:
    pieces = max(48, math.ceil(24 * temperature * 2))
    inner = [(kink - z) / temperature for kink in kinks if abs(kink - z) < 12 * temperature]
    edges = torch.tensor(sorted([*np.linspace(-12, 12, pieces + 1).tolist(), *inner]), dtype=torch.float64)
    low, high = edges[:-1, None], edges[1:, None]
    e = (low + high) / 2 + (high - low) / 2 * _NODES
    weights = (high - low) / 2 * _WEIGHTS
    density = torch.exp(-e * e / 2) / math.sqrt(2 * math.pi)
    return (slope(z + temperature * e) * density * weights).sum()


def soft_pool_adjoint(
    x: Tensor,
    ct: Tensor,
    window: Sequence[Sequence[int]],
    temperature: float,
    padding_takes_part: bool,
) -> Tensor:
    """Cotangent of soft max-pooling, window by window: ct * softmax(x / T) to the members of the window.

    `window` is kernel, stride, padding and dilation.
    """
    kernel, stride, padding, dilation = window
    result = torch.zeros_like(x)
    sizes = x.shape[2:]
    for place in itertools.product(*[range(n) for n in ct.shape]):
        sample, channel, *pooled = place
        members, values = [], []
        for offset in itertools.product(*[range(k) for k in kernel]):
            at = tuple(
                w * s - p + o * d for w, s, p, o, d in zip(pooled, stride, padding, offset, dilation, strict=True)
            )
            inside = all(0 <= a < n for a, n in zip(at, sizes, strict=True))
            if inside or padding_takes_part:
                members.append((sample, channel, *at) if inside else None)
                values.append(float(x[members[-1]]) if members[-1] else 0.0)
        largest = max(values)
        weights = [math.exp((v - largest) / temperature) for v in values]
        for member, weight in zip(members, weights, strict=True):
            if member:
                result[member] += float(ct[place]) * weight / sum(weights)
    return result
