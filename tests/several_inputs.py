"""Small networks that take more than the input that is explained, and their pullbacks written a second time.

Every network takes its gates from outside: torch's own, or soft ones written out here after the paper. With the soft
ones, eager autograd is an oracle that shares no code with the compiler.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import Ascent, Double, Pullback, Soft
from fxpullback.unroll import Program
from tests.helpers import variant

CLASSES, TOKENS, WIDTH = 4, 5, 6


@dataclass(frozen=True)
class Gates:
    """The nonlinear operators of a network."""

    relu: Callable[[Tensor], Tensor]
    gelu: Callable[[Tensor], Tensor]
    attention: Callable[..., Tensor]


def _phi(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def _soft_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = torch.einsum("...ld,...sd->...ls", q, k) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    exponentials = torch.exp(scores - scores.amax(-1, keepdim=True).clamp(min=-1e300))
    weights = exponentials / exponentials.sum(-1, keepdim=True).clamp(min=1e-300)  # a row of zeros stays one
    return torch.einsum("...ls,...sd->...ld", weights.detach(), v)


HARD = Gates(F.relu, F.gelu, F.scaled_dot_product_attention)
SOFT = Gates(
    relu=lambda x: F.relu(x).detach() + x * _phi(x / 0.6).detach() - (x * _phi(x / 0.6)).detach(),
    gelu=lambda x: x * _phi(x).detach(),
    attention=_soft_attention,
)


class Network(nn.Module):
    """A network that takes its gates from outside."""

    gates = HARD


class PaddingMask(Network):
    """Attention over tokens, with a mask that says which of them are there."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, WIDTH // 2)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        mixed = self.gates.attention(q, k, v, padding[:, None, None, :])
        result: Tensor = self.head(self.gates.relu(mixed.transpose(1, 2).flatten(2) + x).mean(1))
        return result


class Bias(PaddingMask):
    """The same with an additive bias that has no batch."""

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, WIDTH // 2)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        mixed = self.gates.attention(q, k, v, bias)
        result: Tensor = self.head(self.gates.relu(mixed.transpose(1, 2).flatten(2) + x).mean(1))
        return result


class Conditioned(Network):
    """Features scaled and shifted by a conditioning vector (FiLM)."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Linear(WIDTH, 8), nn.Linear(8, CLASSES)
        self.scale, self.shift = nn.Linear(3, 8), nn.Linear(3, 8)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        film = torch.sigmoid(self.scale(F.relu(condition))) * self.gates.gelu(self.features(x)) + self.shift(condition)
        result: Tensor = self.head(self.gates.relu(film))
        return result


class Ids(Network):
    """Token-type ids through an embedding, and one weight for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.types, self.features = nn.Embedding(3, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor, types: Tensor, weight: Tensor) -> Tensor:
        hidden = self.gates.relu(self.features(x) + self.types(types)) * weight[:, None, None]
        result: Tensor = self.head(self.gates.gelu(hidden).mean(1))
        return result


class TwoPictures(Network):
    """Two pictures through the same convolutions; the first is explained."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(8, 4, 3, stride=2)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        both = torch.cat([self.gates.relu(self.first(x)), self.gates.relu(self.first(other))], 1)
        result: Tensor = self.head(self.gates.gelu(self.second(both)).mean((2, 3)))
        return result


def _padding(batch: int, generator: torch.Generator) -> Tensor:
    lengths = torch.randint(1, TOKENS + 1, (batch, 1), generator=generator)
    return torch.arange(TOKENS)[None] < lengths


@dataclass(frozen=True)
class Case:
    """A network and what it takes.

    Attributes:
        build: makes the network.
        shape: of the explained input, without the batch.
        extras: makes the extras of a batch.
        names: what they are called.
    """

    build: Callable[[], Network]
    shape: tuple[int, ...]
    extras: Callable[[int, torch.Generator], tuple[Tensor, ...]]
    names: tuple[str, ...]

    def network(self, dtype: torch.dtype = torch.float64) -> Network:
        """The network in evaluation mode, the same on every run."""
        with torch.random.fork_rng():
            torch.manual_seed(5)
            return self.build().to(dtype).eval()

    def inputs(self, batch: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
        """Random inputs, the explained one first."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn((batch, *self.shape), generator=generator)
        return tuple(t.to(dtype) if t.is_floating_point() else t for t in (x, *self.extras(batch, generator)))


CASES = {
    "padding mask": Case(PaddingMask, (TOKENS, WIDTH), lambda b, g: (_padding(b, g),), ("padding",)),
    "bias": Case(Bias, (TOKENS, WIDTH), lambda b, g: (torch.randn(TOKENS, TOKENS, generator=g),), ("bias",)),
    "condition": Case(Conditioned, (WIDTH,), lambda b, g: (torch.randn(b, 3, generator=g),), ("condition",)),
    "ids": Case(
        Ids,
        (TOKENS, WIDTH),
        lambda b, g: (torch.randint(3, (b, TOKENS), generator=g), torch.rand(b, generator=g) + 0.5),
        ("types", "weight"),
    ),
    "two pictures": Case(TwoPictures, (3, 7, 7), lambda b, g: (torch.randn(b, 3, 7, 7, generator=g),), ("other",)),
}

PROGRAMS: dict[str, Program] = {
    "soft": Soft(),
    "double": Double(alpha=2.0),
    "ascent": Ascent(steps=2, alpha=1.5, clip=(-1.5, 1.5)),
}


@functools.cache
def compiled(case: str, program: str = "soft", target: str = "cotangent") -> Pullback:
    """A network in float64, compiled once for all tests: none of them may change it."""
    if (program, target) != ("soft", "cotangent"):
        return variant(compiled(case), program=PROGRAMS[program], target=target)
    return fxpullback.compile(CASES[case].network(), CASES[case].inputs(2, 1), rules=fxpullback.SEMANTIC, target=target)


def oracle(network: Network, program: Any, u: Tensor, x: Tensor, *extras: Tensor) -> dict[str, Tensor]:
    """What a program returns for the cotangent `u`, by eager autograd through the network with soft gates."""
    soft = copy.deepcopy(network)
    soft.gates = SOFT

    def pullback(here: Tensor) -> Tensor:
        leaf = here.detach().clone().requires_grad_(True)
        return torch.autograd.grad((soft(leaf, *extras) * u).sum(), leaf)[0]

    def moved(here: Tensor) -> Tensor:
        step = pullback(here)
        length = torch.sqrt((step * step).flatten(1).sum(1)).reshape(-1, *[1] * (x.ndim - 1))
        result: Tensor = here + program.alpha * step / length
        return result

    with torch.no_grad():
        logits: Tensor = network(x, *extras)
    if isinstance(program, Soft):
        return {"logits": logits, "pullback": pullback(x)}
    if isinstance(program, Double):
        return {"logits": logits, "pullback": pullback(moved(x))}
    here = x
    for _ in range(program.steps):
        here = moved(here).clamp(*program.clip)
    with torch.no_grad():
        after: Tensor = network(here, *extras)
    return {"logits": logits, "pullback": here - x, "counterfactual": here, "counterfactual_logits": after}
