"""VJP rules of softmax and of fused attention: their exact derivative.

`ct` is the cotangent of the output; y, in the code `out`, is the primal output. A rule returns one cotangent for each
tensor argument, ct_x for x. `fxpullback.vjp.rule` explains this and the values ZERO, ABSENT and NOT_DIFFERENTIABLE.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fxpullback.graph.ir import aten
from fxpullback.rules.attention import attention_weights, shared_heads
from fxpullback.vjp.rule import vjp


@vjp(aten.softmax.int, kind="nonlinear")
def softmax(ct: Tensor, out: Tensor, x: Tensor, dim: int, dtype: Any = None) -> tuple[Any]:
    """y = softmax(x) along dim:  ct_x = ct * y - y * sum(ct * y), the sum along dim."""
    weighted = ct * out
    return (weighted - out * weighted.sum([dim], keepdim=True),)


@vjp(aten.log_softmax.int, kind="nonlinear")
def log_softmax(ct: Tensor, out: Tensor, x: Tensor, dim: int, dtype: Any = None) -> tuple[Any]:
    """y = log_softmax(x) along dim:  ct_x = ct - exp(y) * sum(ct), the sum along dim."""
    return (ct - torch.exp(out) * ct.sum([dim], keepdim=True),)


@vjp(aten.scaled_dot_product_attention.default, kind="nonlinear")
def attention(
    ct: Tensor,
    out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Any, ...]:
    """y = p v, p = softmax(s), s = scale * q k^T + mask; let g = p * (ct v^T) and ct_s = g - p * sum(g) along keys:

    ct_q = scale * ct_s k, ct_k = scale * ct_s^T q, ct_v = p^T ct, ct_mask = ct_s (a boolean mask has none).
    Where query heads share key and value heads, ct_k and ct_v are summed over them. Dropout is taken as zero.
    """
    heads, shared = q.shape[-3] if q.ndim > 3 else 0, k
    if enable_gqa:
        k, v = shared_heads(k, heads), shared_heads(v, heads)
    weights = attention_weights(q, k, mask, is_causal, scale)
    of_weights = torch.matmul(ct, v.transpose(-2, -1)) * weights
    of_scores = of_weights - weights * of_weights.sum([-1], keepdim=True)
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale

    def own_heads(x: Tensor) -> Tensor:
        if not enable_gqa or shared.shape[-3] == heads:
            return x
        groups = [*x.shape[:-3], shared.shape[-3], heads // shared.shape[-3], *x.shape[-2:]]
        return x.reshape(groups).sum([len(groups) - 3])

    return (
        lambda: torch.matmul(of_scores, k) * factor,
        lambda: own_heads(torch.matmul(of_scores.transpose(-2, -1), q) * factor),
        lambda: own_heads(torch.matmul(weights.transpose(-2, -1), ct)),
        lambda: of_scores,
    )


RULES = (softmax, log_softmax, attention)
