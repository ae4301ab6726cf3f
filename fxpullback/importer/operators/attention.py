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
    k, v = (_repeated(value, q) for value in (k, v))
    if causal and mask is not None:
        mask, causal = _with_bias(mask, _allowed(q, k, 0, 0, -1), q), False
    return F.scaled_dot_product_attention(q, k, v, mask, 0.0, causal, scale=scale)


def _repeated(x: Tensor, q: Tensor) -> Tensor:
    """Heads of keys or values, each for several of queries."""
    return x if x.shape[1] == q.shape[1] else x.repeat_interleave(q.shape[1] // x.shape[1], 1)


def _allowed(q: Tensor, k: Tensor, before: Any, right: int, left: int) -> Tensor:
    """Which keys a query may see: none further to the right or left of its place, by -1 any."""
    apart = torch.arange(k.shape[2])[None] - (torch.arange(q.shape[2])[:, None] + before)
    seen = apart <= right if right >= 0 else torch.ones_like(apart, dtype=torch.bool)
    return seen & (-apart <= left) if left >= 0 else seen


def _with_bias(mask: Tensor | None, seen: Tensor, q: Tensor) -> Tensor:
    """A mask with what else may not be seen."""
    if mask is None or mask.dtype is torch.bool:
        return seen if mask is None else mask & seen
    return torch.where(seen, mask, float("-inf"))


def _filled(mask: Tensor | None, keys: Any) -> Tensor | None:
    """A mask that ends before the keys do: those behind it are not seen."""
    if mask is None or not isinstance(mask.shape[-1], int) or not isinstance(keys, int) or mask.shape[-1] >= keys:
        return mask
    more = [0, keys - mask.shape[-1]]
    return F.pad(mask, more, value=False if mask.dtype is torch.bool else float("-inf"))


def attention(node: Node, q: Any, k: Any, v: Any, mask: Any = None, *past: Any) -> Any:
    """ai.onnx's attention, of queries, keys and values."""
    flat = q.ndim == 3
    if flat:
        q, count = _heads(q, node.get("q_num_heads")), node.get("kv_num_heads")
        k, v = _heads(k, count), _heads(v, count)
    keys, values, length = ([tensor(value) for value in past] + [None] * 3)[:3]
    before: Any = 0
    if keys is not None:
        before = keys.shape[2]
        k, v = torch.cat([keys, k], 2), torch.cat([values, v], 2)
    mask = _filled(tensor(mask), k.shape[2])
    if length is not None:
        before = (length - q.shape[2]).reshape(-1, 1, 1, 1)
        mask = _with_bias(mask, torch.arange(k.shape[2]) < length.reshape(-1, 1, 1, 1), q)
    right, left = node.get("right_window_size", -1), node.get("left_window_size", -1)
    right = 0 if node.get("is_causal", 0) else right
    if right >= 0 or left >= 0:
        mask = _with_bias(mask, _allowed(q, k, before, right, left), q)
    plain = not node.get("softcap", 0.0) and not any(node.outputs[3:4])
    scores = None
    if plain:
        made = _attended(q, k, v, mask, node.get("scale"), False)
    else:
        made, scores = _written_out(node, q, _repeated(k, q), _repeated(v, q), mask)
    made = _joined(made) if flat else made
    return (made, k, v, scores)[: len(node.outputs)] if len(node.outputs) > 1 else made


def _written_out(node: Node, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention with a soft cap, or one whose scores are read: the values, and the scores that are asked for."""
    scale = node.get("scale") or q.shape[-1] ** -0.5
    raw = torch.matmul(q, k.transpose(-1, -2)) * scale
    cap = node.get("softcap", 0.0)
    capped = torch.tanh(raw / cap) * cap if cap else raw
    if mask is None:
        biased = capped
    elif mask.dtype is torch.bool:
        biased = capped.masked_fill(~mask, float("-inf"))
    else:
        biased = capped + mask
    weights = torch.softmax(biased, -1)
    if mask is not None:  # a query that sees no key has weights of zero
        weights = torch.where(torch.isnan(weights), 0.0, weights)
    asked = (raw, capped, biased, weights)[node.get("qk_matmul_output_mode", 0)]
    return torch.matmul(weights, v), asked


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


def found(
    node: Node, q: Any, turned: Any, v: Any, mask: Any, root: Any = None, k: Any = None, sizes: Any = None
) -> Tensor:
    """Attention that was written out: queries and keys were multiplied with the root of the scale.

    Args:
        node: what stands for it.
        q: queries `[..., queries, width]`.
        turned: keys, their last two axes exchanged.
        v: values `[..., keys, out]`.
        mask: what is added to the scores, or None.
        root: the root of the scale; None where the node has the scale itself.
        k: what the keys were turned from, where that is known.
        sizes: the sizes that they had meanwhile, where they were not turned at once.
    """
    meanwhile = None if k is None or sizes is None else node.numbers(6, [q, turned, v, mask, root, k, sizes])
    direct = k is not None and (sizes is None or meanwhile is None or [*meanwhile[-2:]] == [*k.shape[-2:]])
    keys = k if direct else turned.transpose(-1, -2) if node.get("turned", 1) else turned
    scale = node.get("scale") if root is None else float(node.number(4, [q, turned, v, mask, root])) ** 2
    usual = q.shape[-1] ** -0.5
    return F.scaled_dot_product_attention(
        q, keys, v, tensor(mask), scale=None if abs(scale - usual) <= 1e-6 * usual else scale
    )


OPERATORS: dict[str, Callable[..., Any]] = {
    "Attention": attention,
    "RotaryEmbedding": rotary,
    "com.microsoft.MultiHeadAttention": multi_head,
    "com.microsoft.Attention": projected,
    "com.microsoft.RotaryEmbedding": rotary,
    "fxpullback.Attention": found,
}
