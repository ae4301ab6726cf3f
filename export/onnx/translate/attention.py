"""Scaled dot-product attention, in the three operators a runtime fuses: MatMul, Softmax, MatMul."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.values import BOOL, Dim, Value, rank, sizes

aten = torch.ops.aten


def attention(
    b: Builder,
    query: Value,
    key: Value,
    value: Value,
    mask: Value | None,
    dropout: float,
    causal: bool,
    scale: float | None,
    grouped: bool,
) -> Value:
    """`softmax(scale * q @ k.T + mask) @ v`; the scale goes to the queries, the smaller tensor."""
    if dropout:
        raise b.error("attention with dropout", "Put the model in eval mode before compiling it.")
    if grouped:
        key, value = (_repeated(b, part, sizes(query)[-3]) for part in (key, value))
    scale = 1 / math.sqrt(b.fixed(sizes(query)[-1], "attention")) if scale is None else scale
    total = rank(key)
    turned = b.transpose(key, [*range(total - 2), total - 1, total - 2])
    scores = b.op("MatMul", b.op("Mul", query, b.const(scale, b.dtype)), turned)
    if causal:
        rows, columns = (b.fixed(sizes(part)[-2], "causal attention") for part in (query, key))
        mask = b.const(np.tril(np.ones((rows, columns), dtype=bool)), BOOL)
    if mask is None:
        weights = b.op("Softmax", scores, axis=-1)
    elif mask.dtype == BOOL:
        weights = _masked_softmax(b, scores, mask)
    else:
        weights = b.op("Softmax", b.op("Add", scores, b.cast(mask, b.dtype)), axis=-1)
    return b.op("MatMul", weights, value)


def _masked_softmax(b: Builder, scores: Value, mask: Value) -> Value:
    """Softmax over what a mask leaves; rows of which it leaves nothing are zero, as in torch."""
    hidden = b.op("Where", mask, scores, b.const(-math.inf, b.dtype))
    weights = b.op("Softmax", hidden, axis=-1)
    known = b.array(mask)
    if known is not None and known.any(axis=-1).all():
        return weights
    return b.op("Where", mask, weights, b.const(0, b.dtype))


def _repeated(b: Builder, x: Value, heads: Dim) -> Value:
    """Key or value heads, each for a group of query heads."""
    *lead, own, length, width = sizes(x)
    times = b.fixed(heads, "grouped attention") // b.fixed(own, "grouped attention")
    if times == 1:
        return x
    wide = b.expand(b.unsqueeze(x, len(lead) + 1), [*lead, own, times, length, width])
    return b.reshape(wide, [*lead, heads, length, width])


def flash_attention_cpu(
    b: Builder,
    query: Value,
    key: Value,
    value: Value,
    dropout: float,
    causal: bool,
    mask: Value | None,
    scale: float | None,
) -> tuple[Value, None]:
    """The same; its second result belongs to eager's own adjoint."""
    if any(user.args[1:] == (1,) for user in b.node.users):
        raise b.error("the log-sum-exp of fused attention", "Write the adjoint with softmax.")
    return attention(b, query, key, value, mask, dropout, causal, scale, False), None


TABLE: dict[OpOverload, Translator] = {
    aten.scaled_dot_product_attention.default: attention,
    aten._scaled_dot_product_flash_attention_for_cpu.default: flash_attention_cpu,
}
