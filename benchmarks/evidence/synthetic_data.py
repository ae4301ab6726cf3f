"""Data whose truth is known: which inputs decide, what lies there, and the slope of the true log-odds.

Every kind is a mixture of normal distributions, so densities are in closed form. A class is one or several components,
equally likely; noise of deviation 1 is on every input. Inputs that decide nothing hold noise, or distractors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

INPUTS = 64


@dataclass(frozen=True)
class Sample:
    """Samples with their truth.

    Attributes:
        x: float32 [n, inputs].
        y: int64 [n], classes.
        relevant: bool [n, inputs], the inputs that decide for the class.
        pattern: float32 [n, inputs], what the class put there; 0 elsewhere.
    """

    x: Tensor
    y: Tensor
    relevant: Tensor
    pattern: Tensor


@dataclass(frozen=True)
class Kind:
    """One way the world may be.

    Attributes:
        name: What tables call it.
        text: What decides, in a sentence.
        means: float32 [components, inputs].
        classes: int64 [components], the class of each.
        patterns: float32 [components, inputs], the part of each mean that decides.
        spread: float32 [inputs, inputs], the covariance of all components.
    """

    name: str
    text: str
    means: Tensor
    classes: Tensor
    patterns: Tensor
    spread: Tensor

    @property
    def count(self) -> int:
        """Number of classes."""
        return int(self.classes.max()) + 1

    def draw(self, count: int, seed: int) -> Sample:
        """Samples, classes equally likely."""
        drawn = torch.Generator().manual_seed(seed)
        y = torch.randint(self.count, (count,), generator=drawn)
        fits = (self.classes[None] == y[:, None]).float()
        component = torch.multinomial(fits, 1, generator=drawn)[:, 0]
        noise = torch.randn(count, INPUTS, generator=drawn) @ torch.linalg.cholesky(self.spread).T
        pattern = self.patterns[component]
        return Sample(self.means[component] + noise, y, pattern != 0, pattern)

    def log_densities(self, x: Tensor) -> Tensor:
        """Log density of every class at x [n, inputs], up to what all share: float64 [n, classes]."""
        inverse = torch.linalg.inv(self.spread.double())
        gap = x.double()[:, None] - self.means.double()[None]
        each = -((gap @ inverse) * gap).sum(2) / 2
        members = [each[:, self.classes == c] for c in range(self.count)]
        return torch.stack([held.logsumexp(1) - math.log(held.shape[1]) for held in members], 1)

    def true_slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Slope of the log density of a sample's class minus the mean of the others': float64 [n, inputs].

        Logits of the best classifier are log densities plus anything that all classes share, which the mean takes out.
        """
        with torch.enable_grad():
            at = x.double().requires_grad_()
            scored = (self.log_densities(at) * contrast(y, self.count).double()).sum()
            (slope,) = torch.autograd.grad(scored, at)
        return slope


def contrast(y: Tensor, classes: int) -> Tensor:
    """The cotangent of a class minus the mean of the others: float32 [n, classes]."""
    picked = torch.nn.functional.one_hot(y, classes).float()
    return picked - (1 - picked) / (classes - 1)


def blocks() -> Kind:
    """Each of four classes has a pattern in a block of its own."""
    drawn, each = torch.Generator().manual_seed(1), INPUTS // 4
    means = torch.zeros(4, INPUTS)
    for c in range(4):
        means[c, c * each : (c + 1) * each] = _pattern(each, 4.5, drawn)
    text = "four classes, each with a pattern of its own in a block of 16 inputs; the other blocks hold noise"
    return Kind("blocks", text, means, torch.arange(4), means, torch.eye(INPUTS))


def position() -> Kind:
    """One of three patterns of eight inputs, anywhere."""
    drawn, width = torch.Generator().manual_seed(2), 8
    places = range(0, INPUTS - width + 1, 4)
    means, classes = [], []
    for c in range(3):
        pattern = _pattern(width, 7.0, drawn)
        for place in places:
            mean = torch.zeros(INPUTS)
            mean[place : place + width] = pattern
            means.append(mean)
            classes.append(c)
    text = (
        f"three classes, each a pattern of {width} inputs that lies at one of {len(places)} places; the rest is noise"
    )
    held = torch.stack(means)
    return Kind("position", text, held, torch.tensor(classes), held, torch.eye(INPUTS))


def distractor() -> Kind:
    """Two classes that differ by a pattern in 16 inputs, under a strong distractor that lies partly along it.

    Haufe et al., On the interpretation of weight vectors of linear models in multivariate neuroimaging, 2014;
    Kindermans et al., Learning how to explain neural networks: PatternNet and PatternAttribution, 2018.
    """
    drawn = torch.Generator().manual_seed(3)
    pattern, elsewhere = torch.zeros(2, INPUTS)
    pattern[:16], elsewhere[16:] = _pattern(16, 8.0, drawn), _pattern(INPUTS - 16, 8.0, drawn)
    along = 6 * (0.8 * pattern + 0.6 * elsewhere) / 8
    means = torch.stack([-pattern / 2, pattern / 2])
    text = (
        "two classes that differ by a pattern in 16 inputs; a distractor six times as strong as the noise runs over "
        "all inputs and partly along the pattern, so that the best classifier subtracts it by inputs that say nothing "
        "of the class"
    )
    return Kind("distractor", text, means, torch.arange(2), means, torch.eye(INPUTS) + torch.outer(along, along))


def exclusive() -> Kind:
    """XOR of the signs of two patterns."""
    first, second = _pair(4)
    signs = [(1, 1), (-1, -1), (1, -1), (-1, 1)]
    means = torch.stack([u * first + v * second for u, v in signs])
    text = "two patterns of 8 inputs, each with a random sign; the class is whether the signs are alike"
    return Kind("xor", text, means, torch.tensor([1, 1, 0, 0]), means, torch.eye(INPUTS))


def conjunction() -> Kind:
    """Both patterns positive, or not: what decides against is the negative one."""
    first, second = _pair(5)
    signs = [(1, 1), (-1, 1), (1, -1), (-1, -1)]
    means = torch.stack([u * first + v * second for u, v in signs])
    deciding = torch.stack([first + second, -first, -second, -first - second])
    text = (
        "two patterns of 8 inputs, each with a random sign; class 1 where both are positive, and what decides for "
        "class 0 is whichever is negative"
    )
    return Kind("conjunction", text, means, torch.tensor([1, 0, 0, 0]), deciding, torch.eye(INPUTS))


def _pair(seed: int) -> tuple[Tensor, Tensor]:
    """Two patterns in eight inputs each."""
    drawn = torch.Generator().manual_seed(seed)
    first, second = torch.zeros(2, INPUTS)
    first[:8], second[8:16] = _pattern(8, 4.0, drawn), _pattern(8, 4.0, drawn)
    return first, second


def _pattern(width: int, norm: float, drawn: torch.Generator) -> Tensor:
    """Random signs and sizes from a half to one and a half, of a given norm."""
    signs = torch.randint(2, (width,), generator=drawn) * 2.0 - 1
    held = signs * (0.5 + torch.rand(width, generator=drawn))
    scaled: Tensor = norm * held / held.norm()
    return scaled


KINDS: dict[str, Callable[[], Kind]] = {
    "blocks": blocks,
    "position": position,
    "distractor": distractor,
    "xor": exclusive,
    "conjunction": conjunction,
}
