"""One picture under one network, with what several metrics share: its blank, its maps, the drops of its patches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.random import Generator

from fxpullback.contract.errors import EvaluateError
from fxpullback.export.evaluate.cases import Pictures
from fxpullback.export.evaluate.methods import Method, Predict
from fxpullback.export.evaluate.patches import Array, Mask, Parts, Real, blank_of, grid_of
from fxpullback.export.evaluate.settings import Settings

Again = Callable[[str, float], Method | None]


class NoNumber(EvaluateError):
    """Something is NaN or infinite on one picture, which is no reason to give the others up."""

    def __init__(self, picture: str, what: str) -> None:
        super().__init__(f"{picture}: {what}: NaN or infinity. The picture is left out here.")


@dataclass
class Trial:
    """One picture, and what is asked about it.

    Attributes:
        place: Which picture.
        index: The class that is explained.
        pictures: All of them.
        labels: The class of each, where it is known.
        predict: Logits of pictures.
        settings: How things are measured.
        again: A method under weights drawn anew, from the top down to a share of the layers; None where it has none.
    """

    place: int
    index: int
    pictures: Pictures
    labels: Sequence[int | None]
    predict: Predict
    settings: Settings
    again: Again

    def __post_init__(self) -> None:
        self._maps: dict[str, Array] = {}
        self._kept: dict[str, Real] = {}

    @property
    def name(self) -> str:
        """Name of the picture."""
        return self.pictures.cases[self.place].name

    @cached_property
    def picture(self) -> Array:
        """float32 [channels, height, width]."""
        return self.pictures[self.place]

    @cached_property
    def blank(self) -> Array:
        """What stands for parts that are taken away."""
        return blank_of(self.picture)

    @cached_property
    def logits(self) -> Real:
        """Of the picture as it is."""
        return np.asarray(self.predict(self.picture[None])[0], dtype=np.float64)

    def parts(self, grid: int) -> Parts:
        """The picture in patches."""
        return grid_of(self.picture.shape[-2], self.picture.shape[-1], grid)

    def mask(self) -> Mask:
        """Where the object is."""
        mask = self.pictures.mask(self.place)
        assert mask is not None, "asked of pictures with masks alone"
        return mask

    def rng(self, metric: str) -> Generator:
        """Random numbers of one metric on this picture; the same ones each time it is called."""
        return self.settings.rng(metric, self.name)

    def score(self, x: Array) -> Real:
        """The logit of the class."""
        return self._sound(self.predict(x)[:, self.index])

    def probability(self, x: Array) -> Real:
        """The probability of the class."""
        logits = self._sound(self.predict(x))
        shifted = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(shifted[:, self.index] / shifted.sum(1))

    def once(self, name: str, make: Callable[[], Real]) -> Real:
        """What several methods or metrics need, computed once."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def maps(self, method: Method) -> Array:
        """The map of a method for this picture and class: [height, width] or [channels, height, width]."""
        if method.name not in self._maps:
            self._maps[method.name] = self.explain(method, self.picture[None])[0]
        return self._maps[method.name]

    def flat(self, method: Method) -> Real:
        """The same, one value for each pixel."""
        flat: Real = method.flat(self.maps(method)[None])[0]
        return flat

    def explain(self, method: Method, x: Array, index: int | None = None) -> Array:
        """Maps of pictures [n, ...] for this class, or another."""
        maps = method.explain(x, np.full(len(x), self.index if index is None else index, np.int64))
        if not np.isfinite(maps).all():
            raise NoNumber(self.name, f"{method.name} gives a map that is no number")
        return maps

    def _sound(self, logits: Array) -> Real:
        if not np.isfinite(logits).all():
            raise NoNumber(self.name, "the network gives logits that are no numbers, of the picture or parts of it")
        return np.asarray(logits, dtype=np.float64)


Values = Mapping[str, float]
