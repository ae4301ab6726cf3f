"""Attention, as ai.onnx and as ONNX Runtime's optimiser have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.site import Node, tensor


def _heads(x: Tensor, count: int) -> Tensor:
    """`[batch, tokens, heads * width]` as `[batch, heads, tokens, width]`."""
    return x.reshape([x.shape[0], x.shape[1], count, x.shape[2] // count]).transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, causal: bool) -> Tensor:
    if k.shape[1] != q.shape[1]:  # fewer heads of keys, each for several of queries
        k, v = (value.repeat_interleave(q.shape[1] // k.shape[1], 1) for value in (k, v))
    if causal and mask is not None:
        rows, columns = torch.arange(q.shape[2])[:, None], torch.arange(k.shape[2])[None]
        early = columns <= rows
        mask = mask & early if mask.dtype is torch.bool else mask.masked_fill(~early, float("-inf"))
        causal = False
    return F.scaled_dot_product_attention(q, k, v, mask, 0.0, causal, scale=scale)


def attention(node: Node, q: Any, k: Any, v: Any, mask: Any = None, *past: Any) -> Any:
    """ai.onnx's attention, of queries, keys and values."""
    if any(value is not None for value in past):
        raise CaptureError("keys and values of before are not supported")
    if any(node.outputs[1:]) or node.get("softcap", 0.0):
        raise CaptureError("a soft cap, or outputs beside the first, are not supported")
    flat = q.ndim == 3
    if flat:
        q, kv = _heads(q, node.get("q_num_heads")), node.get("kv_num_heads")
        k, v = _heads(k, kv), _heads(v, kv)
    mask = tensor(mask)
    if (
        mask is not None
        and isinstance(mask.shape[-1], int)
        and isinstance(k.shape[2], int)
        and mask.shape[-1] < k.shape[2]
    ):
        raise CaptureError("a mask shorter than the keys is not supported")
    made = _attended(q, k, v, mask, node.get("scale"), bool(node.get("is_causal", 0)))
    return _joined(made) if flat else made


def _key_mask(mask: Tensor | None, like: Tensor, filler: float) -> Tensor | None:
    """A mask of keys `[batch, tokens]`, one where a key counts, as numbers that are added."""
    if mask is None:
        return None
    if mask.ndim == 1:
        places = torch.arange(like.shape[2])[None]
        mask = places < mask[:, None]
    numbers = (1.0 - mask.to(like.dtype)) * filler
    return numbers[:, None, None] if numbers.ndim == 2 else numbers[:, None]


def multi_head(
    node: Node, q: Any, k: Any = None, v: Any = None, bias: Any = None, mask: Any = None, added: Any = None, *past: Any
) -> Any:
    """ONNX Runtime's attention of projected queries, keys and values."""
    count = node.get("num_heads")
    if any(value is not None for value in past) or any(node.outputs[1:]):
        raise CaptureError("keys and values of before are not supported")
    if q.ndim == 5:  # [batch, tokens, heads, 3, width]
        q, k, v = (part.flatten(2) for part in q.unbind(3))
    if k is None or v is None or k.ndim != 3 or v.ndim != 3:
        raise CaptureError("keys and values that are packed, or in heads already, are not supported")
    if bias is not None:
        first, second, third = torch.split(tensor(bias), [q.shape[-1], k.shape[-1], v.shape[-1]])
        q, k, v = q + first, k + second, v + third
    q, k, v = (_heads(value, count) for value in (q, k, v))
    found = _key_mask(tensor(mask), k, node.get("mask_filter_value", -10000.0))
    if added is not None:
        found = tensor(added) if found is None else found + tensor(added)
    scale = node.get("scale") or None
    return _joined(_attended(q, k, v, found, scale, bool(node.get("unidirectional", 0))))


def projected(
    node: Node, x: Any, weight: Any, bias: Any = None, mask: Any = None, past: Any = None, added: Any = None, *rest: Any
) -> Any:
    """ONNX Runtime's attention with the projection of queries, keys and values in it."""
    if past is not None or any(node.outputs[1:]):
        raise CaptureError("keys and values of before are not supported")
    weight, bias = tensor(weight), tensor(bias)
    width = weight.shape[1] // 3
    sizes: Sequence[int] = node.get("qkv_hidden_sizes") or [width] * 3
    made = F.linear(x, weight.t(), bias)
    count = node.get("num_heads")
    q, k, v = (_heads(part, count) for part in torch.split(made, list(sizes), -1))
    found = _key_mask(tensor(mask), k, node.get("mask_filter_value", -10000.0))
    if added is not None:
        found = tensor(added) if found is None else found + tensor(added)
    return _joined(_attended(q, k, v, found, node.get("scale") or None, bool(node.get("unidirectional", 0))))


def rotary(node: Node, x: Any, *rest: Any) -> Any:
    """Pairs of entries turned by an angle that grows with the place."""
    if node.domain:
        places, cosines, sines = rest[:3]
    else:
        cosines, sines, places = [*rest, None][:3]
    cosines, sines = tensor(cosines), tensor(sines)
    flat = x.ndim == 3
    heads = node.get("num_heads", 0)
    if flat:
        width = heads and x.shape[2] // heads
        width = width or (node.get("rotary_embedding_dim", 0) or cosines.shape[-1] * 2)
        x = x.reshape([x.shape[0], x.shape[1], -1, width])
    else:
        x = x.transpose(1, 2)
    if places is not None:
        at = tensor(places).long()
        cosines, sines = (F.embedding(at, table) for table in (cosines, sines))
    cosines, sines = (table.unsqueeze(-2) for table in (cosines, sines))
    width = node.get("rotary_embedding_dim", 0) or x.shape[-1]
    turned, left = x[..., :width], x[..., width:]
    if node.get("interleaved", 0):
        a, b = turned[..., 0::2], turned[..., 1::2]
        turned = torch.stack([a * cosines - b * sines, a * sines + b * cosines], -1).flatten(-2)
    else:
        a, b = turned.chunk(2, -1)
        turned = torch.cat([a * cosines - b * sines, a * sines + b * cosines], -1)
    made = torch.cat([turned, left], -1) if width != x.shape[-1] else turned
    return made.flatten(2) if flat else made.transpose(1, 2)


OPERATORS: dict[str, Callable[..., Any]] = {
    "Attention": attention,
    "RotaryEmbedding": rotary,
    "com.microsoft.MultiHeadAttention": multi_head,
    "com.microsoft.Attention": projected,
    "com.microsoft.RotaryEmbedding": rotary,
}
