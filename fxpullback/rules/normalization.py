"""Rules for normalisations: the statistics are held constant, and what is left is affine."""

from __future__ import annotations

import torch
from torch import Tensor

from fxpullback.graph.ir import aten, stop_gradient
from fxpullback.rules.rule import gate


@gate(aten.native_layer_norm.default, verdict="frozen")
def layer_norm(x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Layer norm: mean and deviation held constant.

    Primal:  (x - mean) * rstd * gamma + beta
    Adjoint: ct * gamma * rstd; the mean passes nothing back
    """
    _, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
    return affine((x - stop_gradient(mean)) * stop_gradient(rstd), weight, bias)


@gate(aten.group_norm.default, verdict="frozen")
def group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn: bool = True,
) -> Tensor:
    """Group norm: the statistics held constant. Instance norm is the case of one channel a group.

    Primal:  (x - mean) * rstd * gamma + beta, statistics over each group of channels and all positions
    Adjoint: ct * gamma * rstd
    """
    whole = groups == 1 or groups == x.shape[1]  # the statistics are over whole axes of x
    grouped = x if whole else x.reshape([x.shape[0], groups, -1])
    dims = list(range(1 if groups == 1 else 2, grouped.ndim))
    variance, mean = torch.var_mean(grouped, dims, correction=0, keepdim=True)
    normal = (grouped - stop_gradient(mean)) * stop_gradient(torch.rsqrt(variance + eps))
    normal = normal if whole else normal.reshape(x.shape)
    channel = [-1] + [1] * (x.ndim - 2)
    scale = None if weight is None else weight.reshape(channel)
    return affine(normal, scale, None if bias is None else bias.reshape(channel))


@gate(aten.rms_norm.default, verdict="frozen")
def rms_norm(x: Tensor, shape: list[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """RMS norm: the root mean square held constant.

    Primal:  x * rsqrt(mean(x^2) + eps) * gamma
    Adjoint: ct * gamma * rsqrt(mean(x^2) + eps)
    """
    dims = list(range(-len(shape), 0))
    epsilon = torch.finfo(x.dtype).eps if eps is None else eps
    scale = torch.rsqrt((x * x).mean(dims, keepdim=True) + epsilon)
    return affine(x * stop_gradient(scale), weight, None)


@gate(verdict="frozen")
def normalization_by_hand(x: Tensor, statistic: Tensor, divide: bool) -> Tensor:
    """A normalisation written out: a product with, or a quotient by, a statistic such as rsqrt(var + eps).

    Primal:  x * s(x), or x / s(x)
    Adjoint: ct * s(x), or ct / s(x)
    """
    held = stop_gradient(statistic)
    return x / held if divide else x * held


@gate(verdict="frozen")
def centring_by_hand(x: Tensor, mean: Tensor) -> Tensor:
    """The subtraction of the mean in a normalisation written out: the mean passes nothing back.

    Primal:  x - mean(x)
    Adjoint: ct
    """
    return x - stop_gradient(mean)


def affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """x * weight + bias; one of the two that is None is left out. They broadcast to the shape of x."""
    scaled = x if weight is None else x * weight
    return scaled if bias is None else scaled + bias


NORMALIZATIONS = (layer_norm, group_norm, rms_norm)
