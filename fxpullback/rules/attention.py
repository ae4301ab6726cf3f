"""Rules for attention: the routing weights are held constant; the cotangent goes through them to the values alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fxpullback.graph.ir import aten, stop_gradient
from fxpullback.rules.rule import gate


def attention_weights(
    q: Tensor, k: Tensor, mask: Tensor | None, is_causal: bool, scale: float | None, temperature: float = 1.0
) -> Tensor:
    """softmax(scale * q k^T / T + mask), the routing of attention.

    Args:
        q: queries `[..., L, d]`.
        k: keys `[..., S, d]`, as many heads as the queries.
        mask: added to the scores, or boolean (True takes part), broadcastable to `[..., L, S]`.
        is_causal: whether position i attends only to positions up to i.
        scale: factor on the scores; None means 1 / sqrt(d).
        temperature: divides the scores before the mask is added.

    Returns:
        Weights `[..., L, S]` that sum to one over the last dimension. A row that the mask leaves empty is zero, as in
        torch's own fused attention.
    """
    factor = (1 / math.sqrt(q.shape[-1]) if scale is None else scale) / temperature
    scores = torch.matmul(q * factor, k.transpose(-2, -1))
    if is_causal:
        allowed = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
        scores = scores + torch.where(allowed, 0.0, -math.inf).to(q.dtype)
    if mask is not None:
        scores = torch.where(mask, scores, -math.inf) if mask.dtype == torch.bool else scores + mask
    weights = torch.softmax(scores, -1)
    return weights if mask is None else torch.where(empty_rows(mask), 0.0, weights)


def empty_rows(mask: Tensor) -> Tensor:
    """Which rows of a mask `[..., L, S]` are empty, that is let nothing through: boolean, `[..., L, 1]`.

    The softmax of an empty row would be NaN. `lower` removes this test where the mask is known to have no empty row.
    """
    if mask.dtype == torch.bool:
        return ~mask.any(-1, True)
    return torch.amax(mask, [-1], True) == -math.inf


def shared_heads(x: Tensor, heads: int) -> Tensor:
    """Repeat key or value heads so that each query head has its own.

    Args:
        x: keys or values `[..., h, S, d]`.
        heads: number of query heads, a multiple of h.

    Returns:
        `[..., heads, S, d]`: each head heads / h times in a row.
    """
    return x if x.shape[-3] == heads else torch.repeat_interleave(x, heads // x.shape[-3], -3)


@gate(aten.scaled_dot_product_attention.default, temperature=1.0, verdict="frozen", spread=None)
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    temperature: float,
) -> Tensor:
    """Fused attention.

    Primal:  softmax(scale * q k^T + mask) v
    Adjoint: to v alone, softmax(scale * q k^T / T + mask)^T ct
    """
    if enable_gqa:
        k, v = shared_heads(k, q.shape[-3]), shared_heads(v, q.shape[-3])
    weights = attention_weights(q, k, mask, is_causal, scale, temperature)
    return torch.matmul(stop_gradient(weights), v)


@gate(temperature=1.0, verdict="frozen", spread=None, known_as="attention")
def attention_by_hand(
    scores: Tensor,
    routing: Callable[[Tensor], Tensor],
    product: Callable[[Tensor], Tensor],
    *,
    temperature: float,
) -> Tensor:
    """Attention written out: a softmax whose output is multiplied with values in a matrix product.

    Primal:  product(routing(scores)): `routing` is the softmax with mask, bias, windows and head mixing, `product`
             multiplies with the values
    Adjoint: to the values alone, through routing(scores / T)
    """
    return product(stop_gradient(routing(scores / temperature if temperature != 1.0 else scores)))


ATTENTION = (attention,)
