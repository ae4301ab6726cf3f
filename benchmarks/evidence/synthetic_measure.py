"""Train the networks of one kind of data, explain them, score the maps: rows that a stopped run takes up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.evidence import synthetic_data, synthetic_maps, synthetic_scores
from benchmarks.evidence.command import say
from benchmarks.evidence.synthetic_data import KINDS, Kind, Sample
from benchmarks.evidence.synthetic_maps import EXAMPLES, GRADIENT, METHODS, SHARES, SMOOTH, Explain
from benchmarks.evidence.synthetic_scores import AGAIN, COLUMNS, METRIC, NOISE, against_truth, alike
from fxpullback.export.evaluate import Report
from fxpullback.export.evaluate.rows import Row, Rows
from fxpullback.export.evaluate.settings import short

DEPTHS = (2, 3, 4)
USUAL = 3
"""Hidden layers of the networks that the large table and the temperatures are about."""
SCALES = (0.1, 0.2, 0.4, 0.6, 0.9, 1.4, 2.0)
SHAKEN = 0.2
"""Deviation of the noise that maps are asked to bear; that of the data is 1."""
TESTED = 4096
"""Samples that accuracies are found on."""
SEED_SHOWN, SEED_TESTED, SEED_EXAMPLES, SEED_SHAKEN = 1, 2, 3, 4


@dataclass(frozen=True)
class Setup:
    """What is measured how often.

    Attributes:
        kinds: Names of `KINDS`.
        depths: Hidden layers.
        seeds: Networks of each.
        count: Samples that are explained.
        steps: Of training.
        scales: Temperatures and spreads; of networks of the usual depth.
    """

    kinds: tuple[str, ...] = tuple(KINDS)
    depths: tuple[int, ...] = DEPTHS
    seeds: int = 5
    count: int = 256
    steps: int = synthetic_maps.STEPS
    scales: tuple[float, ...] = SCALES

    @property
    def key(self) -> str:
        """What every row hangs on, the code too."""
        modules = (synthetic_data, synthetic_maps, synthetic_scores)
        code = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules]
        return short(f"{self.seeds} {self.count} {self.steps} {SHAKEN} {TESTED} {code}")


@dataclass(frozen=True)
class Found:
    """One kind of data at one depth.

    Attributes:
        report: Methods by columns; what a report calls pictures are seeds.
        swept: Soft pullbacks by temperature, for the usual depth.
        accuracy: Of each network on fresh samples.
        best: Of the best classifier there is.
    """

    report: Report
    swept: Report | None
    accuracy: tuple[float, ...]
    best: float


def fixed(scale: float) -> str:
    """What the soft pullback at one temperature for all gates is called."""
    return f"T {scale:g}"


def spread(scale: float) -> str:
    """What the one at a spread is called."""
    return f"spread {scale:g}"


def measure(setup: Setup, rows: Path) -> dict[tuple[str, int], Found]:
    """Everything, by kind and depth."""
    rows.parent.mkdir(parents=True, exist_ok=True)
    kept = Rows(rows)
    return {(name, depth): _found(setup, name, depth, kept) for name in setup.kinds for depth in setup.depths}


def _found(setup: Setup, name: str, depth: int, kept: Rows) -> Found:
    kind, key = KINDS[name](), f"{setup.key} {name} {depth}"
    tested = kind.draw(TESTED, SEED_TESTED)
    if kept.get("done", "", "", key) is None:
        say(f"{name}, {depth} hidden layers")
        models = [synthetic_maps.trained(kind, depth, seed, setup.steps) for seed in range(setup.seeds)]
        kept.add(_rows(setup, kind, models, tested, key, swept=depth == USUAL))
        kept.add([Row("done", "", "", 1.0, key)])
    held = [row for row in kept.rows if row.key == key]
    accuracy = tuple(row.value for row in held if row.column == "accuracy")
    best = float((kind.log_densities(tested.x).argmax(1) == tested.y).double().mean())
    swept = [name for scale in setup.scales for name in (fixed(scale), spread(scale))]
    usual = depth == USUAL and setup.scales
    return Found(_report(held, METHODS), _report(held, (GRADIENT, SMOOTH, *swept)) if usual else None, accuracy, best)


def _rows(setup: Setup, kind: Kind, models: Sequence[nn.Module], tested: Sample, key: str, *, swept: bool) -> list[Row]:
    """All rows of the networks of one kind and depth."""
    sample = kind.draw(setup.count, SEED_SHOWN)
    explained = [_explained(setup, kind, model, sample, seed, swept=swept) for seed, model in enumerate(models)]
    slope = kind.true_slope(sample.x, sample.y)
    rows = []
    for seed, (model, own) in enumerate(zip(models, explained, strict=True)):
        with torch.no_grad():
            right = float((model(tested.x).argmax(1) == tested.y).double().mean())
        rows.append(Row("accuracy", "", str(seed), right, key))
        other = explained[(seed + 1) % len(explained)]
        for method, (maps, shaken) in own.items():
            scores = against_truth(maps, sample, slope, shares=method in SHARES)
            scores |= {AGAIN: alike(maps, other[method][0]), NOISE: alike(maps, shaken)}
            rows += [Row(column, method, str(seed), value, key) for column, value in scores.items()]
    return rows


def _explained(
    setup: Setup, kind: Kind, model: nn.Module, sample: Sample, seed: int, *, swept: bool
) -> dict[str, tuple[Tensor, Tensor]]:
    """The maps of every method, of the samples and of the same with noise."""
    examples = kind.draw(EXAMPLES, SEED_EXAMPLES).x
    drawn = torch.Generator().manual_seed(SEED_SHAKEN)
    shaken = sample.x + SHAKEN * torch.randn(sample.x.shape, generator=drawn)
    methods: dict[str, Explain] = dict(synthetic_maps.methods_of(model, examples, sample.y, kind.count, seed))
    if swept and setup.scales:
        at = synthetic_maps.soft_at(model, examples, sample.y, kind.count)
        for scale in setup.scales:
            methods |= {fixed(scale): at(scale, False), spread(scale): at(scale, True)}
    return {name: (explain(sample.x), explain(shaken)) for name, explain in methods.items()}


def _report(rows: Sequence[Row], methods: Sequence[str]) -> Report:
    """Rows as the tables take them."""
    about: Mapping[str, object] = {"count": len({row.picture for row in rows if row.column in COLUMNS})}
    named = tuple((method, "") for method in methods)
    found = tuple(row for row in rows if row.column in COLUMNS)
    return Report(found, (METRIC,), named, (), GRADIENT, (), about)
