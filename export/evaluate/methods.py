"""What is measured: methods that give a map for a picture and a class, each with the unit its map is in.

A file gives its own (`pullback`, `pullback * input`, and where it holds them `contribution` and `focus`). Controls say
nothing about a network, and whatever measures explanations must tell them from one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fxpullback.export.evaluate.patches import Array, Real
from fxpullback.export.pictures.maps import focus
from fxpullback.export.pictures.smooth import enlarged

Indices: TypeAlias = npt.NDArray[np.int64]
Predict: TypeAlias = Callable[[Array], Array]
Explain: TypeAlias = Callable[[Array, Indices], Array]
Ask: TypeAlias = Callable[[Array, Indices], tuple[Array, Array | None]]
"""From pictures and classes to the pullback, and the contribution where there is one."""


@dataclass(frozen=True)
class Method:
    """One way to explain.

    Attributes:
        name: What it is called in tables.
        explain: From pictures [n, channels, height, width] and classes [n] to maps [n, height, width], or
            [n, channels, height, width].
        text: What its map shows, in a line.
        slope: The map is a slope, logit for each unit of a pixel: times a change of the picture it predicts the change
            of the logit. Else it shares the logit, or something like it, out to the pixels.
        strength: Drawn as strength: absolute values are summed over the colours. Else the values are.
        any_class: Whether it explains whatever class it is asked for, and not the first one alone.
        control: It knows nothing of the network, and is never called the best.
    """

    name: str
    explain: Explain
    text: str
    slope: bool = False
    strength: bool = False
    any_class: bool = True
    control: bool = False

    def flat(self, maps: Array) -> Real:
        """Maps as one value for each pixel: float64 [n, height, width]."""
        values = np.asarray(maps, dtype=np.float64)
        if values.ndim == 3:
            return values
        return np.asarray(np.abs(values).sum(1) if self.strength else values.sum(1))


def of_pullbacks(ask: Ask, names: dict[str, str], *, contribution: bool) -> list[Method]:
    """The methods that a file with pullbacks gives.

    Args:
        ask: The file.
        names: What to call `pullback`, `input` (the product with it), `contribution` and `focus`; one that is not named
            is not made.
        contribution: Whether the file holds contributions.
    """
    found = [
        Method("pullback", lambda x, y: ask(x, y)[0], "what would raise the logit: |p| over colours", True, True),
        Method("input", lambda x, y: ask(x, y)[0] * x, "pullback times pixel, summed over colours"),
    ]
    if contribution:
        found += [
            Method("contribution", lambda x, y: _contribution(ask, x, y)[1], "what each place carries of the logit"),
            Method("focus", lambda x, y: _focus(ask, x, y), "contribution where positive, times smoothed |p|"),
        ]
    return [replace(method, name=names[method.name]) for method in found if method.name in names]


def _contribution(ask: Ask, x: Array, classes: Indices) -> tuple[Array, Array]:
    """The pullback, and the contribution enlarged to the picture."""
    pullback, coarse = ask(x, classes)
    assert coarse is not None, "asked of a file that holds contributions alone"
    return pullback, enlarged(coarse, *x.shape[-2:]).astype(np.float32)


def _focus(ask: Ask, x: Array, classes: Indices) -> Array:
    """Sharper places, without a sign or a unit: for drawing, and for finding things."""
    pullback, coarse = ask(x, classes)
    assert coarse is not None, "asked of a file that holds contributions alone"
    return focus(coarse, pullback).astype(np.float32)


def controls(seed: int) -> list[Method]:
    """Maps that know nothing of the network: a constant, the picture itself, noise.

    Noise is drawn anew for every picture, the same for each class.
    """

    def constant(x: Array, classes: Indices) -> Array:
        return np.ones((len(x), *x.shape[-2:]), np.float32)

    def noise(x: Array, classes: Indices) -> Array:
        drawn = [np.random.default_rng([seed, _mark(picture)]).random(picture.shape[-2:]) for picture in x]
        return np.stack(drawn).astype(np.float32)

    return [
        Method("constant", constant, "control: the same everywhere", control=True),
        Method("input itself", lambda x, y: np.abs(x), "control: how far from grey", strength=True, control=True),
        Method("noise", noise, "control: random numbers", control=True),
    ]


def _mark(picture: Array) -> int:
    """A number that tells pictures apart."""
    from zlib import crc32

    return crc32(np.ascontiguousarray(picture).tobytes())
