"""Pullback ascent judged by other networks: does a picture that was moved towards a class look like it to them, too?

`python -m benchmarks.evidence.ascent` writes results/ascent.md, .csv and .svg: for each network what the others make of
the moved pictures, how far those are, the gradient and random directions beside it, and a sweep of step and length.
Stopped, it goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.evidence.ascent_judges import Scores, coherence, distances, features, log_probabilities, perceptual
from benchmarks.evidence.ascent_moves import KINDS, climbed, slope_of, targets, to_length
from benchmarks.evidence.ascent_page import (
    ALPHA,
    GRADIENT,
    GRADIENT_FAR,
    PULLBACK,
    RANDOM,
    STEPS,
    STUDY,
    UNMOVED,
    called,
    page,
    picture,
    report_of,
)
from benchmarks.evidence.command import Run, parser_of, run_from, say
from benchmarks.evidence.tables import as_csv
from benchmarks.evidence.variants import OURS, PLAIN, compiled, shown
from benchmarks.networks import Network
from fxpullback.export import Session
from fxpullback.export.evaluate import Report, Settings
from fxpullback.export.evaluate.cases import Pictures, find
from fxpullback.export.evaluate.methods import Indices
from fxpullback.export.evaluate.rows import Row, Rows
from fxpullback.export.evaluate.settings import short
from fxpullback.export.evaluate.sources import digest_of
from fxpullback.unroll import length

NAMES = ("vit_tiny", "mobilenetv2", "mobilenetv3_small", "efficientnet_lite0", "squeezenet1_0")
COUNT = 10
ON_THE_WAY = (1, 2, 5)
"""Steps after which pictures are judged at the default length."""
SWEPT = ("vit_tiny", "mobilenetv2")
SWEEP_COUNT = 3
ALPHAS = (1.0, 5.0, 20.0, 50.0)
LENGTHS = (1, 2, 5, 10)
RULER = "squeezenet1_0"
SETTINGS = Settings()
FORMAT = 1
"""Raised whenever what is measured changes: rows of another format are not taken up again."""


@dataclass(frozen=True)
class Bench:
    """What one network's pictures are moved and judged by.

    Attributes:
        name: The network that is explained.
        pullback: Its file.
        gradient: The same without rules.
        models: Every network, the one that is explained too.
        ruler: What perceptual distance is taken through; None where it would be the network itself.
    """

    name: str
    pullback: Session
    gradient: Session
    models: Mapping[str, nn.Module]
    ruler: nn.Module | None

    @cached_property
    def identity(self) -> str:
        """Everything a value hangs on beside picture, classes and steps."""
        files = [digest_of(Path(session.path)) for session in (self.pullback, self.gradient)]
        return short(f"{FORMAT} {files} {sorted(self.models)} {SETTINGS.digest}")


def bench_of(network: Network, judges: Sequence[Network], build: Path) -> Bench:
    """Compile a network, and put every other of its kind beside it."""
    pullback, gradient = (Session(compiled(network, variant, build)) for variant in (OURS, PLAIN))
    models = {one.name: one.model for one in judges if one.preprocessing.size == network.preprocessing.size}
    ruler = models.get(RULER) if network.name != RULER else None
    return Bench(network.name, pullback, gradient, models | {network.name: network.model}, ruler)


@dataclass(frozen=True)
class Start:
    """A picture and the classes it is moved towards.

    Attributes:
        name: Name of the picture.
        x: It, once for each class [classes, channels, height, width].
        classes: [classes].
        mark: Tells it apart.
    """

    name: str
    x: Tensor
    classes: Indices
    mark: str


def starts(network: Network, session: Session, build: Path) -> Iterator[Start]:
    """The pictures that a network classifies correctly, with their classes."""
    folder, _ = shown(network, build)
    pictures = Pictures(find(folder, None, session.class_count), network.preprocessing)
    for place, case in enumerate(pictures.cases):
        with torch.no_grad():
            logits = network.model(torch.from_numpy(pictures[place][None]))[0].double().numpy()
        if case.label is not None and int(logits.argmax()) == case.label:
            classes = targets(logits, case.label, SETTINGS.rng(STUDY, case.name))
            x = torch.from_numpy(pictures[place]).repeat(len(classes), 1, 1, 1)
            yield Start(case.name, x, classes, f"{pictures.digest(place)} {classes.tolist()}")


def moves(bench: Bench, start: Start) -> Iterator[tuple[str, Tensor]]:
    """The picture moved by every method, at the default step and length and on the way there."""
    ends = {}
    yield UNMOVED, start.x
    for method, session in ((PULLBACK, bench.pullback), (GRADIENT, bench.gradient)):
        way = climbed(slope_of(session, start.classes), start.x, ALPHA, STEPS)
        ends[method] = way[-1] - start.x
        for steps in ON_THE_WAY:
            yield called(method, ALPHA, steps), way[steps - 1]
    wanted = length(ends[PULLBACK])
    drawn = SETTINGS.rng("direction", start.name).normal(size=start.x.shape)
    yield GRADIENT_FAR, to_length(start.x, ends[GRADIENT], wanted)
    yield RANDOM, to_length(start.x, torch.from_numpy(drawn).float(), wanted)


def sweep(bench: Bench, start: Start) -> Iterator[tuple[str, Tensor]]:
    """The picture moved in steps of every length, and judged after some of them."""
    for method, session in ((PULLBACK, bench.pullback), (GRADIENT, bench.gradient)):
        for alpha in ALPHAS:
            way = climbed(slope_of(session, start.classes), start.x, alpha, max(LENGTHS))
            for steps in LENGTHS:
                yield called(method, alpha, steps), way[steps - 1]


def judged(
    bench: Bench, start: Start, made: Iterator[tuple[str, Tensor]], ruler: nn.Module | None
) -> Iterator[tuple[str, Scores]]:
    """What every network makes of moved pictures, and how far they are."""
    classes = torch.from_numpy(start.classes)
    before = log_probabilities(bench.models, start.x)
    there = None if ruler is None else features(ruler, start.x)
    for method, moved in made:
        after = before if method == UNMOVED else log_probabilities(bench.models, moved)
        scores = coherence(before, after, classes, bench.name) | distances(start.x, moved)
        if ruler is not None and there is not None:
            scores["perceptual"] = perceptual(there, features(ruler, moved)).tolist()
        yield method, scores


def rows_of(bench: Bench, start: Start, kept: Rows, *, swept: bool) -> list[Row]:
    """The rows of one picture: measured, or as they were kept. A sweep leaves the own class and the ruler out."""
    kinds: Sequence[str] = KINDS
    if swept:
        kinds = KINDS[1:]
        start = replace(start, x=start.x[1:], classes=start.classes[1:])
    done, key = "swept" if swept else "moved", short(f"{bench.identity} {start.mark} {swept}")
    if kept.get(done, "", start.name, key) is None:
        say(f"{bench.name}: {start.name}, {done}")
        made, ruler = (sweep(bench, start), None) if swept else (moves(bench, start), bench.ruler)
        fresh = [
            Row(f"{measure}, {kind}", method, start.name, value, key)
            for method, scores in judged(bench, start, made, ruler)
            for measure, values in scores.items()
            for kind, value in zip(kinds, values, strict=True)
            if not math.isnan(value)
        ]
        kept.add([*fresh, Row(done, "", start.name, 1.0, key)])
    return [row for row in kept.rows if row.key == key and row.method]


def measure(
    run: Run, networks: Sequence[Network], judges: Sequence[Network], swept: Sequence[str] = SWEPT
) -> tuple[dict[str, Report], dict[str, Report]]:
    """Reports by network: of moves, and of sweeps."""
    found, sweeps = {}, {}
    for network in networks:
        bench = bench_of(network, judges, run.build)
        path = run.build / network.name / f"{STUDY}.jsonl"
        kept = Rows(path)
        first: list[Start] = []
        for start in starts(network, bench.pullback, run.build):
            first.append(start)
            if len(first) == run.count:
                break
        rows = [row for start in first for row in rows_of(bench, start, kept, swept=False)]
        found[network.name] = report_of(rows, len(first))
        if network.name in swept:
            some = first[:SWEEP_COUNT]
            rows = [row for start in some for row in rows_of(bench, start, kept, swept=True)]
            sweeps[network.name] = report_of(rows, len(some))
    return found, sweeps


def main(arguments: Sequence[str] | None = None) -> Run:
    """Measure and write."""
    parser = parser_of(STUDY, "Pullback ascent judged by other networks.", NAMES, COUNT)
    run, _ = run_from(parser, STUDY, NAMES, arguments)
    strange = [name for name in run.names if name not in NAMES]
    if strange:
        raise SystemExit(f"{strange[0]}: nobody is there to judge it. There are {', '.join(NAMES)}.")
    judges = list(replace(run, names=NAMES).networks())
    reports, sweeps = measure(run, [one for one in judges if one.name in run.names], judges)
    run.write(".csv", as_csv(reports | {f"{name}, swept": report for name, report in sweeps.items()}))
    run.write(".svg", picture(reports, sweeps))
    run.write(".md", page(reports, sweeps))
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
