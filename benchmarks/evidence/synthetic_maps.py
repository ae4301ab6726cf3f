"""Small ReLU perceptrons, and their maps: gradient, soft pullbacks, SmoothGrad, integrated gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from benchmarks.evidence.synthetic_data import INPUTS, Kind, contrast
from fxpullback import EXACT, SEMANTIC, Pullback, RuleSet
from fxpullback.calibration import calibrated
from fxpullback.capture import capture
from fxpullback.export.evaluate.exact import NOISE
from fxpullback.rewrite import rewrite

WIDTH = 128
TRAINED_ON = 20_000
STEPS, BATCH, RATE = 400, 128, 3e-3
EXAMPLES = 64
"""Samples that temperatures are calibrated on."""
COPIES = 32
"""Points that SmoothGrad and integrated gradients average over."""

GRADIENT, SMOOTH, PAPER, CALIBRATED = "gradient", "SmoothGrad", "soft, paper's T", "soft, calibrated"
TIMES_INPUT, INTEGRATED, SOFT_TIMES_INPUT = "gradient * input", "integrated gradients", "soft * input"
SHARES = (TIMES_INPUT, INTEGRATED, SOFT_TIMES_INPUT)
METHODS = (GRADIENT, SMOOTH, PAPER, CALIBRATED, *SHARES)

Explain = Callable[[Tensor], Tensor]
"""From inputs [n, inputs] to maps of them, for the classes that those have."""


def perceptron(depth: int, classes: int) -> nn.Sequential:
    """`depth` hidden layers with ReLU."""
    widths = [INPUTS, *[WIDTH] * depth]
    hidden = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(widths[-1], classes))


def trained(kind: Kind, depth: int, seed: int, steps: int = STEPS) -> nn.Sequential:
    """A network with weights and training samples of a seed: AdamW, one cycle."""
    torch.manual_seed(seed)
    model = perceptron(depth, kind.count)
    sample = kind.draw(TRAINED_ON, 1000 + seed)
    drawn = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(steps):
        at = torch.randint(TRAINED_ON, (BATCH,), generator=drawn)
        loss = F.cross_entropy(model(sample.x[at]), sample.y[at])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def compiled(model: nn.Module, examples: Tensor, rules: RuleSet | None) -> Pullback:
    """A network and its pullback of any cotangent; without rules calibrated on the examples."""
    return fxpullback.compile(model, (examples,), rules=rules, target="cotangent")


def explainer(model: Pullback, y: Tensor, classes: int) -> Explain:
    """The pullback of each sample's class minus the mean of the others."""
    return lambda x: model(x, contrast(y.repeat(len(x) // len(y)), classes))[1]


def methods_of(model: nn.Module, examples: Tensor, y: Tensor, classes: int, seed: int) -> Mapping[str, Explain]:
    """Every method for samples of the classes `y`.

    Args:
        model: A trained network.
        examples: What temperatures are calibrated on.
        y: int64 [n].
        classes: How many there are.
        seed: Of the noise of SmoothGrad.
    """
    exact = explainer(compiled(model, examples, EXACT), y, classes)
    paper = explainer(compiled(model, examples, SEMANTIC), y, classes)
    soft = explainer(compiled(model, examples, None), y, classes)
    return {
        GRADIENT: exact,
        SMOOTH: lambda x: smooth_gradient(exact, x, seed),
        PAPER: paper,
        CALIBRATED: soft,
        TIMES_INPUT: lambda x: exact(x) * x,
        INTEGRATED: lambda x: integrated_gradient(exact, x),
        SOFT_TIMES_INPUT: lambda x: soft(x) * x,
    }


def smooth_gradient(exact: Explain, x: Tensor, seed: int) -> Tensor:
    """Mean gradient of noisy copies: Smilkov et al., SmoothGrad, 2017. Noise is a share of a sample's own range."""
    drawn = torch.Generator().manual_seed(seed)
    deviation = NOISE * (x.amax(1, keepdim=True) - x.amin(1, keepdim=True))
    noise = torch.randn(COPIES, *x.shape, generator=drawn)
    return _averaged(exact, x + deviation * noise)


def integrated_gradient(exact: Explain, x: Tensor) -> Tensor:
    """Input times mean gradient on the way from 0: Sundararajan et al., Axiomatic Attribution, 2017."""
    share = (torch.arange(COPIES) + 0.5) / COPIES
    return x * _averaged(exact, share[:, None, None] * x)


def _averaged(exact: Explain, points: Tensor) -> Tensor:
    """Mean gradient over points [copies, n, inputs]."""
    mean: Tensor = exact(points.flatten(0, 1)).unflatten(0, points.shape[:2]).mean(0)
    return mean


def soft_at(model: nn.Module, examples: Tensor, y: Tensor, classes: int) -> Callable[[float, bool], Explain]:
    """Soft pullbacks at many temperatures: autograd through the injected form of a network captured once.

    Returns:
        From a temperature, or where the second argument says so a spread, to the method.
    """
    captured = capture(model, examples)

    def at(scale: float, calibrate: bool) -> Explain:
        rules = SEMANTIC.with_spread(scale) if calibrate else SEMANTIC.with_temperature(relu=scale)
        if calibrate:
            rules = calibrated(captured, rules, ([(examples,)], {"kind": "examples", "samples": len(examples)}))
        soft, _ = rewrite(captured, rules)
        return lambda x: _slope(soft, x, contrast(y, classes))

    return at


def _slope(model: nn.Module, x: Tensor, cotangent: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(model(leaf)[0], leaf, cotangent)
    return found
