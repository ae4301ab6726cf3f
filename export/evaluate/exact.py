"""Baselines through a file of the same model compiled without rules: its pullback is the gradient.

Many points of each picture go through the file at once: noisy copies, points on the way from grey, and both. Where the
file holds contributions, its contribution is HiResCAM at the same taps: activation times gradient, summed over channels
(Draelos and Carin, Use HiResCAM instead of Grad-CAM, 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fxpullback.contract.errors import EvaluateError
from fxpullback.export.evaluate.methods import Ask, Indices, Method, of_pullbacks
from fxpullback.export.evaluate.patches import Array
from fxpullback.export.evaluate.served import Served, check_same
from fxpullback.export.evaluate.settings import Settings
from fxpullback.export.evaluate.sources import Source, of_file

NAMES = {"pullback": "gradient", "input": "gradient * input", "contribution": "HiResCAM"}
NOISE = 0.15
"""Standard deviation of the noise of SmoothGrad and Grad-SHAP as a share of a picture's own range."""


def exact_baselines(file: str | Path) -> Callable[[Served, Settings], Source]:
    """Gradient, gradient * input, SmoothGrad, integrated gradients, Grad-SHAP and HiResCAM, for `evaluate(sources=)`.

    Args:
        file: The same model compiled with the rules `exact`, target `index` or `cotangent`, program `soft`.
    """

    def make(served: Served, settings: Settings) -> Source:
        exact = Served(Path(file), served.providers, NAMES, served.batch)
        _check(exact, served)
        return of_file(exact, settings, lambda one: methods_of(one, settings))

    return make


def methods_of(exact: Served, settings: Settings) -> list[Method]:
    """The baselines that a file without rules gives."""
    ask, samples, rng = exact.ask, settings.samples, settings.rng
    found = of_pullbacks(ask, NAMES, contribution=exact.holds_contribution)

    def over(points: Callable[[Array], Array]) -> Callable[[Array, Indices], Array]:
        return lambda x, classes: mean_gradient(ask, x, classes, points)

    def smooth(picture: Array) -> Array:
        return noisy(picture, samples, rng("SmoothGrad"))

    def path(picture: Array) -> Array:
        share = (np.arange(samples) + 0.5) / samples
        return (picture[None] * share[:, None, None, None]).astype(np.float32)

    def shap(picture: Array) -> Array:
        drawn = rng("Grad-SHAP")
        share = drawn.random((samples, 1, 1, 1)).astype(np.float32)
        return share * noisy(picture, samples, drawn)

    integrated, expected = over(path), over(shap)
    return [
        *found,
        Method(
            "SmoothGrad",
            over(smooth),
            f"mean gradient of {samples} noisy copies: absolute values over colours",
            slope=True,
            strength=True,
        ),
        Method(
            "integrated gradients",
            lambda x, classes: integrated(x, classes) * x,
            f"pixel times mean gradient on the way from grey, {samples} points",
        ),
        Method(
            "Grad-SHAP",
            lambda x, classes: expected(x, classes) * x,
            f"the same at {samples} random points of the way, with noise",
        ),
    ]


def noisy(picture: Array, count: int, rng: np.random.Generator) -> Array:
    """Copies of a picture [channels, height, width] with normal noise."""
    deviation = NOISE * float(picture.max() - picture.min())
    return (picture[None] + rng.normal(0, deviation, (count, *picture.shape))).astype(np.float32)


def mean_gradient(ask: Ask, x: Array, classes: Indices, points: Callable[[Array], Array]) -> Array:
    """For each picture the mean of the gradients at its points."""
    means = []
    for picture, index in zip(x, classes, strict=True):
        at = points(picture)
        means.append(ask(at, np.full(len(at), index))[0].mean(0, dtype=np.float64))
    return np.stack(means).astype(np.float32)


def _check(exact: Served, served: Served) -> None:
    """Raise an EvaluateError unless a file holds the gradient of the same network."""
    rules = exact.session.rules.get("name")
    if rules != "exact" or exact.session.metadata.program_name != "soft" or not exact.any_class:
        raise EvaluateError(
            f"{exact.path}: rules {rules}, program {exact.session.metadata.program_name}, target "
            f"{exact.session.target}: the plain gradient is wanted for baselines. Compile the model with --rules exact."
        )
    if exact.shape != served.shape or exact.session.class_count != served.session.class_count:
        raise EvaluateError(
            f"{exact.path}: it takes {list(exact.shape)} and gives {exact.session.class_count} classes, and "
            f"{served.path} takes {list(served.shape)} and gives {served.session.class_count}. Compile the same model."
        )
    check_same(served, exact.predict, str(exact.path))
