"""VJP rules of normalisations with their exact derivative; under most rule sets a gate rule holds the statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fxpullback.graph.ir import aten
from fxpullback.vjp.rule import ABSENT, NOT_DIFFERENTIABLE, vjp


def _normal(ct: Tensor, normal: Tensor, rstd: Tensor, dims: list[int]) -> Tensor:
    """Cotangent of x for normal = (x - mean) * rstd, mean and rstd over `dims`."""
    along = normal * (ct * normal).mean(dims, keepdim=True)
    return (ct - ct.mean(dims, keepdim=True) - along) * rstd


@vjp(aten.native_layer_norm.default, kind="nonlinear")
def layer_norm(
    ct: tuple[Any, ...], out: tuple[Any, ...], x: Tensor, shape: list[int], weight: Any, bias: Any, eps: float
) -> tuple[Any, Any, Any]:
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
    scale = torch.rsqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    constants = (NOT_DIFFERENTIABLE,) * 4
    return (ct[0] * scale.reshape([-1] + [1] * (x.ndim - 2)), *constants)


RULES = (layer_norm, group_norm, rms_norm, batch_norm)
