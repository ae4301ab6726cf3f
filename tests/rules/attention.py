"""Rows of fused attention."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.rules import attention as rules
from tests.helpers import draw
from tests.rules.rows import Row


def weights(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool, scale: float | None, temperature: float) -> Tensor:
    """The routing, one query and one key at a time."""
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    length, width = q.shape[-2], k.shape[-2]
    rows = []
    for i in range(length):
        scores = []
        for j in range(width):
            score = factor * (q[..., i, :] * k[..., j, :]).sum(-1) / temperature
            if causal and j > i:
                score = torch.full_like(score, -math.inf)
            if mask is not None and mask.dtype == torch.bool:
                score = score if mask[..., i, j] else torch.full_like(score, -math.inf)
            elif mask is not None:
                score = score + mask[..., i, j]
            scores.append(score)
        powers = torch.exp(torch.stack(scores, -1))
        rows.append(powers / powers.sum(-1, keepdim=True))
    return torch.stack(rows, -2)


def attention(
    note: str, mask: Tensor | None = None, causal: bool = False, scale: float | None = None, groups: int = 1
) -> Row:
    """Attention of q, k and v stacked along the heads; with `groups`, each key head serves that many query heads."""
    heads = 4
    shared = heads // groups
    options: dict[str, Any] = {"attn_mask": mask, "is_causal": causal, "scale": scale, "enable_gqa": groups > 1}

    def parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x[:, :heads], x[:, heads:-shared], x[:, -shared:]

    def primal(x: Tensor) -> Tensor:
        cast = {**options, "attn_mask": mask if mask is None or mask.dtype == torch.bool else mask.to(x.dtype)}
        return F.scaled_dot_product_attention(*parts(x), **cast)

    def soft(x: Tensor, temperature: float) -> Tensor:
        cast = mask if mask is None or mask.dtype == torch.bool else mask.to(x.dtype)
        expression: Tensor = rules.attention(*parts(x), cast, 0.0, causal, scale, groups > 1, temperature=temperature)
        return expression

    def adjoint(x: Tensor, ct: Tensor, temperature: float) -> Tensor:
        q, k, _ = parts(x)
        result = torch.zeros_like(x)
        for head in range(heads):
            own = head // groups
            w = weights(q[:, head], k[:, own], mask, causal, scale, temperature)
            result[:, heads + shared + own] += torch.einsum("bij,bid->bjd", w, ct[:, head])
        return result

    return Row(rules.attention, primal, soft, adjoint, draw(2, heads + 2 * shared, 3, 5, seed=6), note=note)


ROWS = [
    attention("plain"),
    attention("scale", scale=0.9),
    attention("causal", causal=True),
    attention("mask", mask=draw(3, 3, seed=7)),
    attention("boolean-mask", mask=torch.tensor([[True, False, True], [True, True, False], [False, True, True]])),
    attention("grouped", groups=2),
    attention("grouped-causal", groups=4, causal=True, scale=0.4),
]
