"""How much a method's map changes when the picture does: rank correlation, cosine, overlap of the strongest places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from torch import nn

from benchmarks.evidence.adversarial_attacks import Attacked
from fxpullback.export.evaluate import Settings, exact_baselines, torch_baselines
from fxpullback.export.evaluate.cases import Pictures, find
from fxpullback.export.evaluate.methods import Method
from fxpullback.export.evaluate.patches import Real
from fxpullback.export.evaluate.rows import Row, Rows
from fxpullback.export.evaluate.served import Served
from fxpullback.export.evaluate.settings import short
from fxpullback.export.evaluate.similarity import cosine, spearman
from fxpullback.export.evaluate.sources import of_file
from fxpullback.export.pictures.preprocessing import Preprocessing

SHARE = 0.2
TRUE, ENDED, FIRST = "true", "ended", "first"
KINDS = {
    TRUE: "the true class, before and after",
    ENDED: "the class that the attack ends in, before and after",
    FIRST: "the network's first class: the true one before, the other after",
}
ANY = 1 << 30
"""Labels were checked when the files were written: any number of classes will do."""
FORMAT = 1
"""Raised whenever what is measured changes."""


def overlap(one: Real, other: Real, rng: np.random.Generator, share: float = SHARE) -> float:
    """Share of the strongest places of one map that are among the strongest of the other; chance is `share`.

    Places of equal strength are taken at random, in either map by itself: two maps that are zero almost everywhere do
    not agree there.

    Args:
        one: A map of any shape.
        other: Another.
        rng: Breaks ties.
        share: How many places count as the strongest.
    """
    count = max(1, round(share * one.size))
    chosen = [set(np.lexsort((rng.random(one.size), -values.ravel()))[:count].tolist()) for values in (one, other)]
    return len(chosen[0] & chosen[1]) / count


def alike(one: Real, other: Real, rng: np.random.Generator) -> dict[str, float]:
    """How alike two maps are, by measure."""
    return {"spearman": spearman(one, other), "cosine": cosine(one, other), "overlap": overlap(one, other, rng)}


def methods_of(
    served: Served, exact: Served, model: nn.Module, wanted: Sequence[str], settings: Settings
) -> list[Method]:
    """The methods that are wanted, of the file, of the file without rules, and of the torch model."""
    found = [
        *of_file(served, settings).methods,
        *exact_baselines(exact.path)(served, settings).methods,
        *torch_baselines(model)(served, settings).methods,
    ]
    return [method for name in wanted for method in found if method.name == name]


def available(served: Served, model: nn.Module, wanted: Sequence[str], instead: dict[str, str]) -> list[str]:
    """The names that are wanted; what the torch model cannot give is replaced by what stands for it."""
    absent = torch_baselines(model)(served, Settings()).absent
    return [instead[name] if name in absent else name for name in wanted]


@dataclass
class Maps:
    """Maps of pictures, each made once.

    Attributes:
        pictures: The pictures by the name of the attack.
    """

    pictures: dict[str, Pictures]

    def __post_init__(self) -> None:
        self._made: dict[tuple[str, int, str, int], Real] = {}

    def of(self, attack: str, place: int, method: Method, index: int) -> Real:
        """[height, width] of a picture, for a class."""
        key = attack, place, method.name, index
        if key not in self._made:
            picture = self.pictures[attack][place][None]
            self._made[key] = method.flat(method.explain(picture, np.array([index], np.int64)))[0]
        return self._made[key]


@dataclass(frozen=True)
class Inquiry:
    """What maps are asked about.

    Attributes:
        methods: What explains.
        clean: The pictures as they were.
        others: They, attacked.
        preprocessing: How a file becomes an input.
        identity: Tells the network and its files apart.
        settings: Where random numbers come from.
    """

    methods: Sequence[Method]
    clean: Attacked
    others: Sequence[Attacked]
    preprocessing: Preprocessing
    identity: str
    settings: Settings


def changes(asked: Inquiry, kept: Rows) -> list[Row]:
    """How alike each method's maps are before and after each attack, a row for each value.

    The class that an attack ends in is asked for on fooled pictures alone.

    Args:
        asked: What is asked.
        kept: Rows that were measured before, and where new ones go.
    """
    found: list[Row] = []
    made = {
        one.name: Pictures(find(one.folder, None, ANY), asked.preprocessing) for one in (asked.clean, *asked.others)
    }
    for place, case in enumerate(made[asked.clean.name].cases):
        maps = Maps(made)
        for other, method in product(asked.others, asked.methods):
            ended = other.after[place]
            marks = f"{made[asked.clean.name].digest(place)} {made[other.name].digest(place)} {ended}"
            key = short(f"{FORMAT} {asked.identity} {asked.settings.digest} {marks}")
            done = f"{other.name} done"
            if kept.get(done, method.name, case.name, key) is None:
                assert case.label is not None, "written with its class"
                rng = asked.settings.rng("ties", case.name)
                values = _changed(maps, asked.clean.name, other.name, place, method, case.label, ended, rng)
                fresh = [Row(f"{m}, {other.name}, {k}", method.name, case.name, v, key) for (m, k), v in values.items()]
                kept.add([*fresh, Row(done, method.name, case.name, 1.0, key)])
            found += [row for row in kept.rows if (row.key, row.method) == (key, method.name) and row.column != done]
    return found


def _changed(
    maps: Maps, clean: str, attack: str, place: int, method: Method, true: int, ended: int, rng: np.random.Generator
) -> dict[tuple[str, str], float]:
    """How alike, by measure and kind."""

    def of(which: str, index: int) -> Real:
        return maps.of(which, place, method, index)

    pairs = {TRUE: (of(clean, true), of(attack, true))}
    if ended != true:
        now = of(attack, ended)
        pairs |= {ENDED: (of(clean, ended), now), FIRST: (of(clean, true), now)}
    return {(name, kind): value for kind, both in pairs.items() for name, value in alike(*both, rng).items()}
