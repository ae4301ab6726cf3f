"""Gates written as several operators: what the model does, and the same with `detach` where the rule has it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.helpers import draw
from tests.rules.oracles import phi
from tests.rules.patterns.attention_by_hand import ATTENTION
from tests.rules.patterns.case import Case, Model, injected, sg

# Products with a computed gate. Maps are [batch, 4, 3, 3].

UP, DOWN, HALF = draw(2, 4, seed=1), draw(4, 2, seed=2), draw(4, 4, seed=3)


def squeezed(x: Tensor) -> Tensor:
    return (x.mean((2, 3)) @ UP.T @ DOWN.T)[:, :, None, None]


def hard(z: Tensor) -> Tensor:
    return F.relu6(z + 3) / 6


def gated(name: str, gate: Model, content: Model = lambda x: x, sizes: tuple[int, ...] = (4, 3, 3)) -> Case:
    return Case(name, "gated_product", lambda x: content(x) * gate(x), lambda x, t: content(x) * sg(gate(x)), sizes)


def _cbam(x: Tensor, hold: Callable[[Tensor], Tensor]) -> Tensor:
    x = x * hold(torch.sigmoid(squeezed(x)))
    return hold(torch.sigmoid(x.mean(1, keepdim=True) * 1.5 + 0.2)) * x


GATED = [
    gated("squeeze-excite", lambda x: torch.sigmoid(squeezed(x))),
    gated("squeeze-excite-hard", lambda x: F.hardsigmoid(squeezed(x))),
    gated("squeeze-excite-by-hand", lambda x: hard(squeezed(x))),
    gated("scaled", lambda x: 2 * torch.sigmoid(squeezed(x)) - 0.5),
    gated("expanded", lambda x: torch.sigmoid(squeezed(x)).expand_as(x)),
    gated("glu", lambda x: torch.sigmoid(x[:, 2:]), lambda x: x[:, :2]),
    Case(
        "functional-glu",
        "gated_product",
        lambda x: F.glu(x, 1),
        lambda x, t: x[:, :2] * sg(torch.sigmoid(x[:, 2:])),
        (4, 3),
    ),
    gated("tanh-content", lambda x: torch.sigmoid(x[:, 2:] @ HALF), lambda x: x[:, :2] @ HALF, (4, 4)),
    gated("tanh-gate", lambda x: torch.tanh(squeezed(x))),
    gated("softmax-gate", lambda x: torch.softmax(squeezed(x), 1)),
    Case("cbam", "gated_product", lambda x: _cbam(x, lambda g: g), lambda x, t: _cbam(x, sg), (4, 3, 3), gates=2),
]

# Gates z g(z) written out.


def own(name: str, gate: Callable[[Tensor], Tensor], rule: str = "self_gated", flipped: bool = False) -> Case:
    def model(x: Tensor) -> Tensor:
        return gate(x) * x if flipped else x * gate(x)

    ts = (1.6, 1.0, 0.7) if rule == "silu_by_hand" else (1.0, 0.7, 2.0)
    return Case(name, rule, model, lambda x, t: injected(model(x), x * sg(gate(x / t))), (3, 7), ts)


def _gelu_tanh(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(0.7978845608 * (z + 0.044715 * z.pow(3))))


def _gelu_half(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


SELF_GATED = [
    own("quick-gelu", lambda z: torch.sigmoid(1.702 * z)),
    own("swish-by-hand", torch.sigmoid, "silu_by_hand"),
    own("swish-by-hand-flipped", torch.sigmoid, "silu_by_hand", flipped=True),
    own("mish-by-hand", lambda z: torch.tanh(F.softplus(z))),
    own("hard-swish-by-hand", hard),
    own("hard-swish-functional", F.hardsigmoid),
    own("gelu-tanh-by-hand", _gelu_tanh),
    own("gelu-ndtr-by-hand", torch.special.ndtr),
    Case(
        "gelu-erf-by-hand",
        "self_gated",
        _gelu_half,
        lambda x, t: injected(_gelu_half(x), x * sg(phi(x / t))),
        (3, 7),
        (1.0, 0.7, 2.0),
    ),
    Case(
        "hard-swish-divided-last",
        "self_gated",
        lambda x: x * F.relu6(x + 3) / 6,
        lambda x, t: injected(x * F.relu6(x + 3) / 6, x * sg(hard(x / t))),
        (3, 7),
        (1.0, 0.7),
    ),
]

# Thresholds written as a choice.


def choice(name: str, model: Model, slope: float = 0.0) -> Case:
    return Case(
        name,
        "relu_by_hand",
        model,
        lambda x, t: injected(model(x), x * sg(slope + (1 - slope) * phi(x / t))),
        (3, 7),
        (0.6, 0.3),
    )


def shrinkage(name: str, model: Model, width: float) -> Case:
    return Case(
        name,
        "shrink_by_hand",
        model,
        lambda x, t: injected(model(x), x * sg(phi((x - width) / t) + phi(-(x + width) / t))),
        (3, 7),
        (0.6, 0.3),
    )


THRESHOLDS = [
    choice("relu-where", lambda x: torch.where(x > 0, x, 0.0)),
    choice("relu-where-zeros", lambda x: torch.where(x >= 0, x, torch.zeros_like(x))),
    choice("relu-where-turned", lambda x: torch.where(x < 0, 0.0, x)),
    choice("relu-masked-fill", lambda x: x.masked_fill(x < 0, 0.0)),
    choice("relu-product", lambda x: x * (x > 0)),
    choice("relu-product-cast", lambda x: (x > 0).to(x.dtype) * x),
    choice("leaky-where", lambda x: torch.where(x > 0, x, 0.1 * x), 0.1),
    choice("leaky-where-turned", lambda x: torch.where(x <= 0, x * 0.2, x), 0.2),
    shrinkage("softshrink", lambda x: F.softshrink(x, 0.4), 0.4),
    shrinkage("hardshrink", lambda x: F.hardshrink(x, 0.3), 0.3),
]

# Normalisations written out: maps [batch, 6, 4].

GAMMA = draw(6, 1, seed=4)


def normal(name: str, model: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor], centred: bool = False) -> Case:
    rule = "centring_by_hand" if centred else "normalization_by_hand"
    return Case(name, rule, lambda x: model(x, lambda s: s), lambda x, t: model(x, sg), (6, 4))


def _channels_first(x: Tensor, hold: Callable[[Tensor], Tensor]) -> Tensor:
    u = hold(x.mean(1, keepdim=True))
    s = hold((x - u).pow(2).mean(1, keepdim=True))
    return (x - u) / torch.sqrt(s + 1e-6) * GAMMA


def _var(x: Tensor, hold: Callable[[Tensor], Tensor]) -> Tensor:
    return (
        (x - hold(x.mean(1, keepdim=True))) * hold(torch.rsqrt(x.var(1, keepdim=True, unbiased=False) + 1e-5)) * GAMMA
    )


def _var_mean(x: Tensor, hold: Callable[[Tensor], Tensor]) -> Tensor:
    variance, mean = torch.var_mean(x, dim=(1, 2), keepdim=True, correction=0)
    return (x - hold(mean)) / hold(torch.sqrt(variance + 1e-5))


def _std(x: Tensor, hold: Callable[[Tensor], Tensor]) -> Tensor:
    return (x - hold(x.mean((1, 2), keepdim=True))) / hold(x.std((1, 2), keepdim=True) + 1e-3)


def _fast(x: Tensor, hold: Callable[[Tensor], Tensor]) -> Tensor:
    mean = hold(x.mean(1, keepdim=True))
    return (x - mean) / hold(torch.sqrt(x.pow(2).mean(1, keepdim=True) - mean.square() + 1e-5)) * GAMMA


def _fast_sums(x: Tensor, hold: Callable[[Tensor], Tensor]) -> Tensor:
    """As JAX writes it: means as sums times a number, the variance no smaller than zero, gamma in the statistic."""
    mean = x.sum(1) * (1 / 6)
    variance = torch.maximum(torch.zeros(()), (x * x).sum(1) * (1 / 6) - mean * mean)
    held = hold(mean.reshape(-1, 1, 4).expand(-1, 1, 4))
    return (x - held) * (hold(torch.reciprocal(torch.sqrt(variance[:, None] + 1e-5))) * GAMMA)


NORMAL = [
    normal("rms-by-hand", lambda x, hold: x * hold(torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)) * GAMMA),
    normal("rms-of-product", lambda x, hold: x * hold(torch.rsqrt((x * x).mean(1, keepdim=True) + 1e-6))),
    normal("norm", lambda x, hold: x / hold(x.norm(dim=1, keepdim=True))),
    normal("norm-clamped", lambda x, hold: x / hold(x.norm(dim=1, keepdim=True).clamp(min=1e-6))),
    normal(
        "functional-normalize",
        lambda x, hold: (
            F.normalize(x, dim=1)
            if hold(x) is x
            else x / hold(torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(1e-12))
        ),
    ),
    normal("channels-first", _channels_first, centred=True),
    normal("var", _var, centred=True),
    normal("var-mean", _var_mean, centred=True),
    normal("std", _std, centred=True),
    normal("mean-of-squares", _fast, centred=True),
    normal("mean-of-squares-by-sums", _fast_sums, centred=True),
]

CASES = [*ATTENTION, *GATED, *SELF_GATED, *THRESHOLDS, *NORMAL]


# Products of two factors that both carry the picture: no gate, the product rule stays; (model, oracle).


def _soft_silu(a: Tensor) -> Tensor:
    return injected(F.silu(a), a * sg(torch.sigmoid(a / 1.6)))


def _soft_relu6(a: Tensor) -> Tensor:
    return injected(F.relu6(a), a * sg(phi(a / 0.6)))


PRODUCTS: dict[str, tuple[Model, Model]] = {
    "swiglu": (lambda x: F.silu(x[:, :3]) * x[:, 3:], lambda x: _soft_silu(x[:, :3]) * x[:, 3:]),
    "starnet": (lambda x: F.relu6(x[:, :3]) * x[:, 3:], lambda x: _soft_relu6(x[:, :3]) * x[:, 3:]),
    "starnet-shifted": (
        lambda x: F.relu6(x[:, :3] @ HALF) * (x[:, 3:] + 3),
        lambda x: _soft_relu6(x[:, :3] @ HALF) * (x[:, 3:] + 3),
    ),
    "square": (lambda x: x * x, lambda x: x * x),
    "halves": (lambda x: x[:, :3] * x[:, 3:], lambda x: x[:, :3] * x[:, 3:]),
}
