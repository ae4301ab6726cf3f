"""Attention written out: scaled before and after, biased, masked, in windows, of fewer keys."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tests.helpers import draw
from tests.rules.patterns.case import Case, Model, injected, sg

# Attention: tokens [batch, 5, 6], two heads of width 3 where there are heads.

QKV, BIAS, MIX, MIX2 = draw(6, 18, seed=1) / 2, draw(2, 5, 5, seed=2), draw(2, 2, seed=3), draw(2, 2, seed=4)
MASK = torch.ones(5, 5, dtype=torch.bool).tril(1)


def heads(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    qkv = (x @ QKV).reshape(x.shape[0], 5, 3, 2, 3).permute(2, 0, 3, 1, 4)
    return qkv[0], qkv[1], qkv[2]


def joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], 5, 6)


def attention(
    name: str,
    scores: Callable[[Tensor, Tensor], Tensor],
    after: Callable[[Tensor], Tensor] = lambda s: s,
    mixed: Callable[[Tensor], Tensor] = lambda w: w,
    product: Callable[[Tensor, Tensor], Tensor] = lambda w, v: w @ v,
) -> Case:
    """softmax(after(scores(q, k))), mixed, then the values; T divides the scores before what comes after them."""

    def model(x: Tensor) -> Tensor:
        q, k, v = heads(x)
        return joined(product(mixed(torch.softmax(after(scores(q, k)), -1)), v))

    def oracle(x: Tensor, temperature: float) -> Tensor:
        q, k, v = heads(x)
        soft = product(sg(mixed(torch.softmax(after(scores(q, k) / temperature), -1))), v)
        return joined(injected(product(mixed(torch.softmax(after(scores(q, k)), -1)), v), soft))

    return Case(name, "attention_by_hand", model, oracle, (5, 6), (1.0, 0.5, 3.0))


def scaled(q: Tensor, k: Tensor) -> Tensor:
    return (q * 0.6) @ k.transpose(-2, -1)


def scaled_after(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1) * 0.6


def divided(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1) / 3**0.5


def by_einsum(q: Tensor, k: Tensor) -> Tensor:
    return torch.einsum("bhid,bhjd->bhij", q, k)


def talking(x: Tensor, mix: Tensor) -> Tensor:
    return (x.permute(0, 2, 3, 1) @ mix).permute(0, 3, 1, 2)


def _windows(x: Tensor) -> Tensor:
    """[batch, 4, 4, 6] -> [batch * 4, 4, 6], windows of 2 x 2."""
    return x.reshape(-1, 2, 2, 2, 2, 6).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 6)


WINDOW_BIAS, SHIFT = draw(4, 4, seed=5), torch.where(draw(4, 4, 4, seed=6) > 1, -100.0, 0.0).double()


def windowed(x: Tensor, temperature: float | None) -> Tensor:
    """Shifted windows with bias and mask, as in Swin."""
    qkv = (_windows(torch.roll(x, (-1, -1), (1, 2))) @ QKV).reshape(-1, 4, 3, 6)
    q, k, v = qkv.unbind(2)
    scores = q @ k.transpose(-2, -1) * 0.4

    def routing(s: Tensor) -> Tensor:
        with_mask = (s + WINDOW_BIAS).reshape(-1, 4, 4, 4) + SHIFT
        return torch.softmax(with_mask.reshape(-1, 4, 4), -1)

    out = routing(scores) @ v
    if temperature is not None:
        out = injected(out, sg(routing(scores / temperature)) @ v)
    return out.reshape(x.shape[0], -1)


def values_first(x: Tensor, temperature: float | None) -> Tensor:
    """v^T w^T, the weights on the right, as in channels-first attention."""
    q, k, v = heads(x)
    scores = k @ q.transpose(-2, -1)
    out = v.transpose(-2, -1) @ torch.softmax(scores, -2)
    if temperature is not None:
        soft = v.transpose(-2, -1) @ sg(torch.softmax(scores / temperature, -2))
        out = injected(out, soft)
    return out


POOLED = draw(2, 5, seed=8)


def reduced(x: Tensor, temperature: float | None) -> Tensor:
    """Keys and values of fewer positions, as in spatial-reduction attention."""
    tokens = POOLED @ x
    q, k, v = x @ QKV[:, :6], tokens @ QKV[:, 6:12], tokens @ QKV[:, 12:]
    scores = q @ k.transpose(1, 2) * 0.4
    out = torch.softmax(scores, -1) @ v
    return out if temperature is None else injected(out, sg(torch.softmax(scores / temperature, -1)) @ v)


def both(function: Callable[[Tensor, float | None], Tensor]) -> tuple[Model, Callable[[Tensor, float], Tensor]]:
    return lambda x: function(x, None), lambda x, t: function(x, t)


ATTENTION = [
    attention("plain", scaled),
    attention("scaled-after", scaled_after),
    attention("divided", divided),
    attention("bias", scaled_after, lambda s: s + BIAS),
    attention("bias-first", scaled, lambda s: BIAS + s),
    attention("mask-filled", scaled, lambda s: s.masked_fill(~MASK, -1e4)),
    attention("mask-where", divided, lambda s: torch.where(MASK, s, -1e4)),
    attention("bias-and-mask", scaled_after, lambda s: (s + BIAS).masked_fill(~MASK, float("-inf"))),
    attention("talking-heads", scaled, lambda s: talking(s, MIX), lambda w: talking(w, MIX2)),
    attention("einsum", by_einsum, product=lambda w, v: torch.einsum("bhij,bhjd->bhid", w, v)),
    Case("windows", "attention_by_hand", *both(windowed), (4, 4, 6), (1.0, 0.5)),
    Case("values-first", "attention_by_hand", *both(values_first), (5, 6), (1.0, 2.0)),
    Case("spatial-reduction", "attention_by_hand", *both(reduced), (5, 6), (1.0, 2.0)),
]
