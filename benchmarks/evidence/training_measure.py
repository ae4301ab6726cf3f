"""What trained networks are asked: accuracy under noise, and how faithful their explanations are."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import nn

from benchmarks.evidence.command import Run, say
from benchmarks.evidence.training_form import form_of, temperatures_for, without_gradient
from benchmarks.evidence.training_networks import CIFAR_CLASSES, Pictures, Recipe
from benchmarks.evidence.training_run import Trained, Way, train
from benchmarks.evidence.variants import measured
from benchmarks.networks import Network
from fxpullback.export.evaluate import Report, Settings
from fxpullback.export.evaluate.cases import LABELS
from fxpullback.export.evaluate.drawn import write_drawn
from fxpullback.export.evaluate.metrics import METRICS, Column, Metric
from fxpullback.export.evaluate.rows import Row
from fxpullback.export.pictures.preprocessing import Preprocessing

NOISES = (0.0, 0.1, 0.2, 0.4)
"""Standard deviations of Gaussian noise on pixels in [-1, 1]."""
SETTINGS = Settings(grid=8, steps=12, runs=50, samples=4)
PULLBACK, GRADIENT = "pullback", "gradient"
METHODS = (PULLBACK, GRADIENT, "contribution", "HiResCAM")
ASKED = ("occlusion", "insertion", "infidelity", "object-share")
SHOWN = {
    "occlusion": "occ",
    "insertion - deletion": "i-d",
    "infidelity, share": "infidelity",
    "predicted change": "predicted",
    "object share": "object share",
}


def noise_column(deviation: float) -> Column:
    """Accuracy at a strength of noise."""
    name = f"noise {deviation:g}" if deviation else "accuracy"
    return Column(name, True, f"share of test pictures classified correctly, noise {deviation:g}", hits=True)


ACCURACIES = tuple(noise_column(deviation) for deviation in NOISES)


@dataclass(frozen=True)
class Found:
    """What became of one network, trained in several ways.

    Attributes:
        recipe: How.
        ways: In which ways.
        seeds: How many times each.
        accuracy: By way. What the report calls pictures are seeds; test pictures where there is one seed.
        maps: By `way: method`, likewise.
        losses: Of the last epoch, by way.
        untouched: Share of the weights that get no gradient, by way.
        count: Pictures that were explained.
    """

    recipe: str
    ways: tuple[Way, ...]
    seeds: int
    accuracy: Report
    maps: Report
    losses: dict[str, float]
    untouched: dict[str, float]
    count: int


def named(way: Way | str, method: str) -> str:
    """What a method of a network trained in a way is called."""
    return f"{way if isinstance(way, str) else way.name}: {method}"


def measure(run: Run, recipe: Recipe, ways: Sequence[Way], seeds: int, pictures: Path) -> Found:
    """Train, and ask every network.

    Args:
        run: What was asked for.
        recipe: How it is trained.
        ways: In which ways.
        seeds: How many times.
        pictures: A folder with labels, of pictures it was not trained on.
    """
    folder = run.build / run.study / "weights"
    trained = [train(recipe, way, seed, folder) for seed in range(seeds) for way in ways]
    right, seen = [], []
    metrics = [name for name in ASKED if name != "object-share" or recipe.name == "demo"]
    for one in trained:
        right += _accuracy_rows(one, recipe.test, seeds)
        report = measured(
            run, _network(recipe, one, pictures), metrics, methods=METHODS, settings=SETTINGS, pictures=pictures
        )
        seen += _map_rows(one, report, seeds)
    return Found(
        recipe=str(recipe),
        ways=tuple(ways),
        seeds=seeds,
        accuracy=report_of(right, ACCURACIES, [way.name for way in ways], seeds),
        maps=report_of(seen, _columns(metrics), [named(way, method) for way in ways for method in METHODS], seeds),
        losses={way.name: fmean(one.losses[-1] for one in trained if one.way == way) for way in ways},
        untouched={way.name: untouched(recipe, way) for way in ways},
        count=len({row.picture for row in report.rows}),
    )


def _network(recipe: Recipe, one: Trained, folder: Path) -> Network:
    """A trained network as the other experiments take them."""
    name = f"{recipe.name}-{one.way.name.replace(' ', '-')}-{one.seed}"
    plain = Preprocessing.plain((3, recipe.size, recipe.size))
    return Network(f"training/{name}", one.model, plain, folder, dict(enumerate(recipe.classes)), recipe.taps)


def _accuracy_rows(one: Trained, test: Pictures, seeds: int) -> list[Row]:
    found = []
    for deviation in NOISES:
        hits = correct(one.model, test, deviation)
        column, unit = noise_column(deviation).name, f"seed {one.seed}"
        rows = {unit: fmean(hits)} if seeds > 1 else {f"{number:05}": hit for number, hit in enumerate(hits)}
        found += [Row(column, one.way.name, name, value, "") for name, value in rows.items()]
    return found


def correct(model: nn.Module, test: Pictures, deviation: float) -> list[float]:
    """Which test pictures are classified correctly under noise: 1 or 0 for each; the noise is the same each time."""
    drawn = torch.Generator().manual_seed(0)
    x, y = test
    hits: list[float] = []
    with torch.no_grad():
        for some, labels in zip(x.split(100), y.split(100), strict=True):
            noisy = some + deviation * torch.randn(some.shape, generator=drawn)
            hits += (model(noisy).argmax(1) == labels).float().tolist()
    return hits


def _map_rows(one: Trained, report: Report, seeds: int) -> list[Row]:
    found = []
    for column in report.columns:
        for method in METHODS:
            values = report.values(column.name, method)
            if seeds > 1 and values:
                values = {f"seed {one.seed}": fmean(values.values())}
            found += [Row(column.name, named(one.way, method), name, value, "") for name, value in values.items()]
    return found


def _columns(metrics: Sequence[str]) -> tuple[Column, ...]:
    found = (column for metric in METRICS if metric.name in metrics for column in metric.columns)
    return tuple(column for column in found if column.name in SHOWN)


def report_of(rows: Sequence[Row], columns: Sequence[Column], methods: Sequence[str], seeds: int) -> Report:
    """Rows as the tables take them; means over seeds are no hits, whatever they are means of."""
    held = tuple(Column(c.name, c.high, c.text, c.hits and seeds == 1) for c in columns)
    kept = {column.name for column in held}
    metric = Metric("training", held, _unmeasured, "What became of the networks?")
    found = tuple(row for row in rows if row.column in kept)
    return Report(found, (metric,), tuple((name, "") for name in methods), (), methods[0], (), {})


def _unmeasured(*_: object) -> dict[str, float]:
    raise NotImplementedError("values come with their rows")


def untouched(recipe: Recipe, way: Way) -> float:
    """The share of a fresh network's weights that get no gradient, on a batch of its training pictures."""
    torch.manual_seed(0)
    model = recipe.make()
    x = recipe.train[0][:16]
    rules = way.rules if way.rules.spread is None else temperatures_for(model, [x], way.rules)
    shares = without_gradient(model, form_of(model.train(), x[:2], rules), x)
    sizes = {name: value.numel() for name, value in model.named_parameters()}
    return sum(share * sizes[name] for name, share in shares.items()) / sum(sizes.values())


def drawn_pictures(run: Run) -> Path:
    """Pictures of the demo's kind with masks, of another seed than those it is trained and tested on."""
    folder = run.build / run.study / f"drawn-{run.count}"
    if not (folder / LABELS).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_drawn(folder, run.count)
    return folder


def cifar_pictures(run: Run, source: Path) -> Path:
    """Links to test pictures of `source`, by turns of their classes."""
    folder = run.build / run.study / f"cifar-{run.count}"
    folder.mkdir(parents=True, exist_ok=True)
    listed: list[list[str | int]] = [["file", "class_index"]]
    for number in range(run.count):
        label = number % len(CIFAR_CLASSES)
        # From the end: what accuracy is tested on comes from the beginning.
        file = sorted((source / "test" / CIFAR_CLASSES[label]).glob("*.jpg"))[-1 - number // len(CIFAR_CLASSES)]
        link = folder / f"{number:03}-{CIFAR_CLASSES[label]}.jpg"
        link.unlink(missing_ok=True)
        link.symlink_to(file.resolve())
        listed.append([link.name, label])
    with (folder / LABELS).open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows(listed)
    say(f"{folder}: {run.count} pictures")
    return folder
