"""Attention rollout, and its gradient-weighted form, of transformers over a square of tokens.

Abnar and Zuidema, Quantifying Attention Flow in Transformers, 2020; Chefer, Gur and Wolf, Generic Attention-model
Explainability, 2021. Attention is read off where it is computed, whether by torch's fused operator or written out, so
modules need no changes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class Attention(TorchFunctionMode):
    """Keeps every attention matrix [batch, heads, tokens, tokens] that is computed inside."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attended(*args, **kwargs)
        result = func(*args, **kwargs)
        is_softmax = func in (F.softmax, torch.softmax, Tensor.softmax)
        if is_softmax and result.dim() == 4 and result.shape[-1] == result.shape[-2]:
            self.kept.append(result)
        return result

    def _attended(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Torch's fused attention, written out."""
        if is_causal or enable_gqa:
            raise NotImplementedError("rollout is for attention over all tokens, each head with its own keys")
        scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if attn_mask is not None:
            masked = torch.where(attn_mask, 0.0, -torch.inf) if attn_mask.dtype == torch.bool else attn_mask
            scores = scores + masked
        weights = scores.softmax(-1)
        self.kept.append(weights)
        return weights @ value


def grid_of(model: nn.Module, x: Tensor) -> tuple[int, int] | None:
    """Tokens in front of the square, and its side; None for a model whose attention is not over one square."""
    attention = Attention()
    try:
        with torch.no_grad(), attention:
            model(x)
    except NotImplementedError:
        return None
    shapes = {tuple(held.shape[-2:]) for held in attention.kept if len(held) == len(x)}
    if len(shapes) != 1 or len(attention.kept) < 2 or any(len(held) != len(x) for held in attention.kept):
        return None
    tokens = shapes.pop()[0]
    side = math.isqrt(tokens)
    return (tokens - side * side, side) if side > 1 else None


def rollout(model: nn.Module, x: Tensor, classes: Tensor, *, weighted: bool) -> Tensor:
    """What flows from each patch to the class token, or on average to all patches where there is none.

    Args:
        model: In eval mode.
        x: [batch, channels, height, width].
        classes: int64 [batch]; read by the weighted form alone.
        weighted: Attention is multiplied by its gradient, and what is negative left out, before heads are averaged.

    Returns:
        float [batch, side, side].
    """
    found = grid_of(model, x)
    assert found is not None, "asked of models with a square of tokens alone"
    front, side = found
    attention = Attention()
    with torch.enable_grad(), attention:
        logits = model(x.requires_grad_(weighted))
    kept: list[Tensor] = attention.kept
    if weighted:
        picked = logits.gather(1, classes[:, None]).sum()
        slopes = torch.autograd.grad(picked, kept)
        kept = [(held * slope).relu() for held, slope in zip(kept, slopes, strict=True)]
    flow: Tensor | None = None
    one = torch.eye(kept[0].shape[-1], dtype=kept[0].dtype, device=kept[0].device)
    for held in kept:
        heads = held.detach().mean(1)
        # The residual: half of each token stays in plain rollout; the weighted form adds what comes.
        step = heads + one if weighted else (heads + one) / 2
        flow = step.expand_as(heads) if flow is None else step @ flow
    assert flow is not None
    # Without a class token: what came from elsewhere, since what each patch keeps of itself tells none apart.
    seen = flow[:, 0, front:] if front else (flow - one * weighted).mean(1)
    return seen.reshape(len(x), side, side)
