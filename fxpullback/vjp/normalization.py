"""VJP rules of normalisations: their exact derivative. Where a gate rule holds the statistics constant, it comes first.

`ct` is the cotangent of the output; y, in the code `out`, is the primal output. A rule returns one cotangent for each
tensor argument, ct_x for x. `fxpullback.vjp.rule` explains this and the values ZERO, ABSENT and NOT_DIFFERENTIABLE.

Weights, biases and running statistics are parameters of the model and NOT_DIFFERENTIABLE. A weight that is None counts
as one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fxpullback.graph.ir import aten
from fxpullback.vjp.rule import ABSENT, NOT_DIFFERENTIABLE, vjp


def _normal(ct: Tensor, normal: Tensor, rstd: Tensor, dims: list[int]) -> Tensor:
    """For n = (x - mean) * rstd:  ct_x = rstd * (ct - mean(ct) - n * mean(ct * n)), means over `dims`.

    Args:
        ct: cotangent of n, the shape of x.
        normal: n.
        rstd: 1 / sqrt(var(x) + eps) over `dims`, which have size one in it.
        dims: the axes that the statistics are taken over.
    """
    along = normal * (ct * normal).mean(dims, keepdim=True)
    return (ct - ct.mean(dims, keepdim=True) - along) * rstd


@vjp(aten.native_layer_norm.default, kind="nonlinear")
def layer_norm(
    ct: tuple[Any, ...], out: tuple[Any, ...], x: Tensor, shape: list[int], weight: Any, bias: Any, eps: float
) -> tuple[Any, Any, Any]:
    """y[0] = n * weight + bias, n = (x - mean) * rstd:  ct_x = rstd * (c - mean(c) - n * mean(c * n)).

    Here c = ct[0] * weight. The means are over the last len(shape) axes. y[1] is the mean and y[2] rstd; no cotangent
    may arrive there. ct_weight = ct_bias = NOT_DIFFERENTIABLE.
    """
    assert ct[1:] == (ABSENT, ABSENT), "only the first output of layer norm carries a cotangent"
    _, mean, rstd = out
    scaled = ct[0] if weight is None else ct[0] * weight
    dims = list(range(x.ndim - len(shape), x.ndim))
    cts = (lambda: _normal(scaled, (x - mean) * rstd, rstd, dims), NOT_DIFFERENTIABLE, NOT_DIFFERENTIABLE)
    return cts


@vjp(aten.group_norm.default, kind="nonlinear")
def group_norm(
    ct: Tensor,
    out: Tensor,
    x: Tensor,
    groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn: bool = True,
) -> tuple[Any, Any, Any]:
    """y = n * weight + bias, n = (x - mean) * rstd:  ct_x = rstd * (c - mean(c) - n * mean(c * n)).

    Here c = ct * weight. The means are over all channels of a group and all positions. ct_weight = ct_bias =
    NOT_DIFFERENTIABLE.
    """
    grouped = x.reshape([x.shape[0], groups, -1])
    variance, mean = torch.var_mean(grouped, [2], correction=0, keepdim=True)
    rstd = torch.rsqrt(variance + eps)
    scaled = ct if weight is None else ct * weight.reshape([-1] + [1] * (x.ndim - 2))
    inner = _normal(scaled.reshape([x.shape[0], groups, -1]), (grouped - mean) * rstd, rstd, [2])
    return inner.reshape(x.shape), NOT_DIFFERENTIABLE, NOT_DIFFERENTIABLE


@vjp(aten.rms_norm.default, kind="nonlinear")
def rms_norm(
    ct: Tensor, out: Tensor, x: Tensor, shape: list[int], weight: Any = None, eps: float | None = None
) -> tuple[Any, Any]:
    """y = n * weight, n = x * r, r = 1 / sqrt(mean(x^2) + eps):  ct_x = r * (c - n * mean(c * n)), c = ct * weight.

    The means are over the last len(shape) axes. ct_weight = NOT_DIFFERENTIABLE.
    """
    dims = list(range(x.ndim - len(shape), x.ndim))
    epsilon = torch.finfo(x.dtype).eps if eps is None else eps
    rstd = torch.rsqrt((x * x).mean(dims, keepdim=True) + epsilon)
    normal, scaled = x * rstd, ct if weight is None else ct * weight
    return (scaled - normal * (scaled * normal).mean(dims, keepdim=True)) * rstd, NOT_DIFFERENTIABLE


@vjp(aten._native_batch_norm_legit_no_training.default, kind="linear")
def batch_norm(
    ct: tuple[Any, ...],
    out: tuple[Any, ...],
    x: Tensor,
    weight: Any,
    bias: Any,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Any, ...]:
    """y[0] = (x - mean) * s + bias, s = weight / sqrt(variance + eps):  ct_x = ct[0] * s, channel by channel.

    Mean and variance are the running ones. ct_weight = ct_bias = ct_mean = ct_variance = NOT_DIFFERENTIABLE.
    """
    scale = torch.rsqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    constants = (NOT_DIFFERENTIABLE,) * 4
    return (ct[0] * scale.reshape([-1] + [1] * (x.ndim - 2)), *constants)


RULES = (layer_norm, group_norm, rms_norm, batch_norm)
