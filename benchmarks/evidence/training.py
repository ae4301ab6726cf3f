"""Training through the injected form beside ordinary training: accuracy, accuracy under noise, explanations.

`python -m benchmarks.evidence.training` writes results/training.md, .csv and .svg. Gradients of the loss for the
weights flow through soft gates; the logits are those of the model. The network of the demo is trained on drawn
pictures; a ResNet-20 on CIFAR-10 too where `--cifar FOLDER` or FXPULLBACK_CIFAR names a folder with
train/CLASS/*.jpg and test/CLASS/*.jpg. Under an hour on one core; stopped, it goes on with the next epoch.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.evidence.command import Run, parser_of, run_from
from benchmarks.evidence.figures import COLOURS, MARKERS, figure, line, svg
from benchmarks.evidence.tables import AHEAD, BEHIND, LEVEL, as_csv, markdown, means, verdict
from benchmarks.evidence.training_measure import (
    GRADIENT,
    METHODS,
    NOISES,
    PULLBACK,
    SETTINGS,
    SHOWN,
    Found,
    cifar_pictures,
    drawn_pictures,
    measure,
    named,
)
from benchmarks.evidence.training_networks import of_cifar, of_demo
from benchmarks.evidence.training_run import CALIBRATED, GATES, ORDINARY, PAPER, Way
from fxpullback.export.evaluate import Report

STUDY = "training"
NAMES = ("demo", "cifar")
COUNT = 32
FOLDER = "FXPULLBACK_CIFAR"
WAYS = {"demo": (ORDINARY, CALIBRATED, GATES), "cifar": (ORDINARY, CALIBRATED)}
SEEDS = {"demo": 3, "cifar": 1}
EPOCHS = {"demo": 4, "cifar": 3}
PICTURES = {"demo": 5600, "cifar": 12800}


def three(value: float) -> str:
    """Three digits."""
    return f"{value:.3f}"


def beside(report: Report, column: str, ours: str, theirs: str) -> tuple[str, str]:
    """Ahead, level or behind; and the difference with its interval."""
    one = verdict(report, next(c for c in report.columns if c.name == column), [ours], [theirs])
    if one is None:
        return "", ""
    gap = f"{one.gap.mean:+.3f}"
    if one.gap.count < 2:
        return LEVEL, gap
    return one.word, f"{gap} [{three(one.gap.low)}, {three(one.gap.high)}]"


def differences(report: Report, pairs: Sequence[tuple[str, str, str]]) -> str:
    """A table of (label, ours, theirs), positive where ours is better."""
    heads = ["", *(column.name for column in report.columns)]
    rows = []
    for label, ours, theirs in pairs:
        cells = [" ".join(beside(report, column.name, ours, theirs)) for column in report.columns]
        rows.append([label, *(cell.replace(AHEAD, f"**{AHEAD}**").replace(BEHIND, f"**{BEHIND}**") for cell in cells)])
    return markdown(heads, rows)


def soft_ways(found: Found) -> list[Way]:
    """Those beside ordinary training."""
    return [way for way in found.ways if way != ORDINARY]


def map_pairs(found: Found) -> list[tuple[str, str, str]]:
    """What is compared: each way with ordinary training, by the same method; and both methods of the same network."""
    across = [
        (f"{named(way, method)} to {named(ORDINARY, method)}", named(way, method), named(ORDINARY, method))
        for way in soft_ways(found)
        for method in (PULLBACK, GRADIENT)
    ]
    within = [
        (f"{named(way, PULLBACK)} to its gradient", named(way, PULLBACK), named(way, GRADIENT)) for way in found.ways
    ]
    return across + within


def counted(words: Sequence[str]) -> str:
    """How many are ahead, level and behind."""
    held = Counter(words)
    return f"ahead in {held[AHEAD]}, level in {held[LEVEL]}, behind in {held[BEHIND]} of {len(words)}"


def says(name: str, found: Found) -> list[str]:
    """What the numbers of a network say; every word of comparison comes from them."""
    told = []
    maps, (plain, *noisy) = [column.name for column in found.maps.columns], [c.name for c in found.accuracy.columns]
    for way in soft_ways(found):
        word, gap = beside(found.accuracy, plain, way.name, ORDINARY.name)
        under = counted([beside(found.accuracy, column, way.name, ORDINARY.name)[0] for column in noisy])
        alike = {
            method: counted([beside(found.maps, c, named(way, method), named(ORDINARY, method))[0] for c in maps])
            for method in (PULLBACK, GRADIENT)
        }
        told.append(
            f"{name}, {way.name}, beside ordinary training: accuracy {word}, {gap}; under noise {under} strengths. Of "
            f"the columns of its explanations the pullback is {alike[PULLBACK]}, the gradient {alike[GRADIENT]}. "
            f"{100 * found.untouched[way.name]:.0f} % of the weights get no gradient this way."
        )
    within = [
        f"{way.name} {counted([beside(found.maps, c, named(way, PULLBACK), named(way, GRADIENT))[0] for c in maps])}"
        for way in found.ways
    ]
    told.append(f"{name}: pullback beside gradient of the same network, columns: {'; '.join(within)}.")
    return told


def picture(results: Mapping[str, Found]) -> str:
    """A row for each network: accuracy by noise, and two columns of its explanations."""
    shown = ("infidelity, share", "insertion - deletion")
    with figure(len(results), 1 + len(shown), width=3.4, height=2.8) as (drawn, axes):
        for down, (name, found) in enumerate(results.items()):
            axis: Any = axes[down, 0]
            for number, way in enumerate(found.ways):
                line(axis, number, way.name, NOISES, [found.accuracy.mean(c, way.name) for c in found.accuracy.columns])
            axis.set(title=name, xlabel="noise on pixels", ylabel="accuracy")
            axis.legend(fontsize=7)
            for across, column in enumerate(shown, 1):
                explained(axes[down, across], found, column)
        return svg(drawn)


def explained(axis: Any, found: Found, name: str) -> None:
    """Means of a column with their intervals: methods across, ways in colours."""
    column = next(c for c in found.maps.columns if c.name == name)
    for number, way in enumerate(found.ways):
        held = [found.maps.mean(column, named(way, method)) for method in METHODS]
        places = [place + 0.15 * (number - (len(found.ways) - 1) / 2) for place in range(len(METHODS))]
        reach = [[one.mean - one.low for one in held], [one.high - one.mean for one in held]]
        colour, mark = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axis.errorbar(places, [one.mean for one in held], reach, fmt=mark, color=colour, markersize=4, linewidth=1)
    axis.set_xticks(range(len(METHODS)), METHODS, fontsize=7)
    axis.set(ylabel=f"{name} ({'high' if column.high else 'low'} is better)")


ABOUT = f"""# Training through the injected form

`python -m benchmarks.evidence.{STUDY}`

The compiler rewrites a network so that its logits stay and autograd gives the soft pullback. Here the loss goes through
that graph: its gradients for the weights pass soft gates. The graph has the model's own parameters, and its batch norms
normalise by the batch and move their running statistics, in all ways alike; with no rules it is ordinary training, to
the last bit. Every way begins with the same weights and sees the same pictures in the same order. Trained networks are
then compiled as any other, by the default (pullback, contribution) and without rules (gradient, HiResCAM), and asked
about the same pictures for their true class. Noise is Gaussian on pixels in [-1, 1], not clipped.

Intervals are of 95 %: over seeds where there are several; over test pictures where there is one, and those say nothing
of another training. Level means not told apart, which comes easily with three seeds of a network that has hardly begun
to learn; it does not mean equal. Columns: docs/evaluate.md; grid {SETTINGS.grid}, {SETTINGS.steps} steps,
{SETTINGS.runs} changes.
"""


def part(name: str, found: Found) -> str:
    """The tables of one network."""
    ways = [
        [way.name, way.text, three(found.losses[way.name]), f"{100 * found.untouched[way.name]:.1f} %"]
        for way in found.ways
    ]
    headings = {column.name: column.name for column in found.accuracy.columns}
    pairs = [(f"{way.name} to {ORDINARY.name}", way.name, ORDINARY.name) for way in soft_ways(found)]
    seeds = "1 seed" if found.seeds == 1 else f"{found.seeds} seeds"
    return "\n".join(
        [
            f"## {name}\n",
            f"{found.recipe}; {seeds} each way; {found.count} pictures explained.\n",
            markdown(["way", "what it is", "last loss", "weights without gradient"], ways),
            means(found.accuracy, headings),
            differences(found.accuracy, pairs),
            means(found.maps, SHOWN),
            differences(found.maps, map_pairs(found)),
        ]
    )


def page(results: Mapping[str, Found], absent: str) -> str:
    """The Markdown page."""
    told = "".join(f"- {sentence}\n" for name, found in results.items() for sentence in says(name, found))
    figure_of = f"![Accuracy by noise, infidelity and insertion minus deletion, a row for each network]({STUDY}.svg)\n"
    tables = [part(name, found) for name, found in results.items()]
    return "\n".join([ABOUT, *([absent] if absent else []), "## What it says\n", told, figure_of, *tables])


def main(arguments: Sequence[str] | None = None) -> Run:
    """Train, measure and write."""
    known = {way.name: way for way in (CALIBRATED, GATES, PAPER)}
    parser = parser_of(STUDY, "Training through soft gates beside ordinary training.", NAMES, COUNT)
    parser.add_argument("--cifar", type=Path, help=f"a folder train/CLASS/*.jpg, test/CLASS/*.jpg (default: {FOLDER})")
    parser.add_argument("--seeds", type=int, help="trainings of each (default: 3 of the demo, 1 of CIFAR)")
    parser.add_argument("--epochs", type=int, help="of each (default: 4 and 3)")
    parser.add_argument("--images", type=int, help="pictures to train on (default: 5600 and 12800)")
    parser.add_argument(
        "--ways",
        nargs="+",
        choices=list(known),
        help="beside ordinary (default: calibrated; of the demo gates alone too)",
    )
    run, options = run_from(parser, STUDY, NAMES, arguments)
    if unknown := [name for name in run.names if name not in NAMES]:
        parser.error(f"{', '.join(unknown)}: there are {' and '.join(NAMES)}")
    given = os.environ.get(FOLDER)
    folder = options.cifar or (Path(given) if given else None)
    if folder is None and "cifar" in options.names:
        parser.error(f"name a folder of pictures with --cifar or {FOLDER}")
    chosen = [name for name in run.names if name != "cifar" or folder is not None]
    results = {}
    for name in chosen:
        ways = WAYS[name] if options.ways is None else (ORDINARY, *(known[way] for way in options.ways))
        results[name] = measured(run, name, folder, ways, options)
    absent = "" if len(chosen) == len(run.names) else f"CIFAR-10 was left out: neither --cifar nor {FOLDER} names it.\n"
    reports = {f"{n}, accuracy": f.accuracy for n, f in results.items()} | {n: f.maps for n, f in results.items()}
    run.write(".csv", as_csv(reports))
    run.write(".svg", picture(results))
    run.write(".md", page(results, absent))
    return run


def measured(run: Run, name: str, folder: Path | None, ways: Sequence[Way], options: Namespace) -> Found:
    """One network, trained and asked."""
    epochs, images = options.epochs or EPOCHS[name], options.images or PICTURES[name]
    seeds = options.seeds or SEEDS[name]
    if folder is None or name == "demo":
        return measure(run, of_demo(epochs, images), ways, seeds, drawn_pictures(run))
    return measure(run, of_cifar(folder, epochs, images), ways, seeds, cifar_pictures(run, folder))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
