"""Gradient against soft pullback on ReLU perceptrons, on data whose truth is known.

`python -m benchmarks.evidence.synthetic` writes results/synthetic.md, .csv and .svg: how much of each map lies on the
inputs that decide, how near it is to the slope of the true log-odds, how well it bears noise and another training; at
three depths and many temperatures. Minutes on one core.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch

from benchmarks.evidence.command import Run, parser_of, run_from
from benchmarks.evidence.figures import figure, line, svg
from benchmarks.evidence.synthetic_data import KINDS
from benchmarks.evidence.synthetic_maps import (
    CALIBRATED,
    COPIES,
    EXAMPLES,
    GRADIENT,
    INTEGRATED,
    PAPER,
    SMOOTH,
    SOFT_TIMES_INPUT,
    TIMES_INPUT,
    TRAINED_ON,
    WIDTH,
)
from benchmarks.evidence.synthetic_measure import DEPTHS, SHAKEN, USUAL, Found, Setup, fixed, measure, spread
from benchmarks.evidence.synthetic_scores import AGAIN, COLUMNS, NOISE, PATTERN, SHARE, SLOPE
from benchmarks.evidence.tables import AHEAD, BEHIND, LEVEL, as_csv, cell, markdown, means, verdict
from fxpullback.export.evaluate.intervals import Mean, mean_of

STUDY = "synthetic"
COUNT = 256
SEEDS = 5
PAIRS = (
    (CALIBRATED, GRADIENT),
    (PAPER, GRADIENT),
    (CALIBRATED, SMOOTH),
    (SOFT_TIMES_INPUT, TIMES_INPUT),
    (SOFT_TIMES_INPUT, INTEGRATED),
)
Results = Mapping[tuple[str, int], Found]


def exactly(value: float) -> str:
    """Three digits: differences here are small."""
    return f"{value:.3f}"


def gap(found: Found, column: str, ours: str, theirs: str) -> tuple[str, Mean]:
    """Ahead, level or behind, and the mean difference over seeds with its interval."""
    one = verdict(found.report, COLUMNS[column], [ours], [theirs])
    assert one is not None, "every method has every column"
    return one.word, one.gap


def told(found: Found, column: str, ours: str, theirs: str) -> str:
    """The same in a cell."""
    word, held = gap(found, column, ours, theirs)
    text = f"{held.mean:+.3f} ± {exactly((held.high - held.low) / 2)}"
    return f"**{word}** {text}" if word != LEVEL else f"{word} {text}"


def words(results: Results, ours: str, theirs: str, columns: Sequence[str] = tuple(COLUMNS)) -> Counter[str]:
    """In how many cells, kinds by columns, one is ahead, level and behind at the usual depth."""
    return Counter(
        gap(found, column, ours, theirs)[0]
        for (_, depth), found in results.items()
        if depth == USUAL
        for column in columns
    )


def versus(results: Results, ours: str, theirs: str) -> str:
    """A table of differences: columns in rows, kinds in columns."""
    usual = {name: found for (name, depth), found in results.items() if depth == USUAL}
    rows = [[column, *(told(found, column, ours, theirs) for found in usual.values())] for column in COLUMNS]
    return markdown(["", *usual], rows)


def by_depth(results: Results, column: str) -> str:
    """Calibrated soft minus gradient, by kind and depth."""
    depths = sorted({depth for _, depth in results})
    names = dict.fromkeys(name for name, _ in results)
    rows = [[name, *(told(results[name, depth], column, CALIBRATED, GRADIENT) for depth in depths)] for name in names]
    return markdown([f"{column}", *(f"{depth} hidden layers" for depth in depths)], rows)


def accuracies(results: Results) -> str:
    """What the networks reach, and what can be reached."""
    depths = sorted({depth for _, depth in results})
    names = dict.fromkeys(name for name, _ in results)
    rows = [
        [
            name,
            *(cell(mean_of(results[name, depth].accuracy), digits=exactly) for depth in depths),
            exactly(results[name, depths[0]].best),
        ]
        for name in names
    ]
    return markdown(["", *(f"{depth} hidden layers" for depth in depths), "best possible"], rows)


def best_scales(found: Found, column: str, scales: Sequence[float]) -> tuple[float, float]:
    """The temperature and the spread with the best mean in a column."""
    assert found.swept is not None
    swept = found.swept
    mean = {name: swept.mean(COLUMNS[column], name).mean for name, _ in swept.methods}
    return max(scales, key=lambda scale: mean[fixed(scale)]), max(scales, key=lambda scale: mean[spread(scale)])


def scale_table(results: Results, scales: Sequence[float]) -> str:
    """For each kind the best temperature and spread by three columns."""
    rows = []
    for (name, _), found in results.items():
        if found.swept is not None:
            best = [best_scales(found, column, scales) for column in (SLOPE, SHARE, AGAIN)]
            rows.append([name, *(f"{temperature:g} / {held:g}" for temperature, held in best)])
    return markdown(["best T / best spread", SLOPE, SHARE, AGAIN], rows)


def picture(results: Results, scales: Sequence[float]) -> str:
    """Three columns of the table by temperature, a panel for each kind."""
    swept = {name: found.swept for (name, _), found in results.items() if found.swept is not None}
    shown = (SLOPE, SHARE, AGAIN)
    with figure(len(shown), len(swept), width=2.6, height=2.2) as (drawn, axes):
        for across, (name, report) in enumerate(swept.items()):
            for down, column in enumerate(shown):
                axis: Any = axes[down, across]
                for number, (label, named) in enumerate((("T for all gates", fixed), ("spread", spread))):
                    y = [report.mean(COLUMNS[column], named(scale)) for scale in scales]
                    line(axis, number, label, scales, y)
                for number, method in enumerate((GRADIENT, SMOOTH), 2):
                    line(axis, number, method, [scales[0], scales[-1]], [report.mean(COLUMNS[column], method)] * 2)
                axis.set(xscale="log", xlabel="T, or spread" if down == len(shown) - 1 else "")
                axis.set(ylabel=column if across == 0 else "", title=name if down == 0 else "")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
        return svg(drawn)


def of_distractors(found: Found) -> str:
    """Whether the map shows what the network weighs, or what the class puts into the data."""

    def cosines(method: str) -> str:
        slope, pattern = (exactly(found.report.mean(COLUMNS[column], method).mean) for column in (SLOPE, PATTERN))
        return f"{slope} to the slope of the best classifier and {pattern} to the pattern"

    slope, pattern = (found.report.mean(COLUMNS[column], CALIBRATED).mean for column in (SLOPE, PATTERN))
    word = gap(found, PATTERN, CALIBRATED, GRADIENT)[0]
    text = (
        f"Distractors: the calibrated pullback has cosine {cosines(CALIBRATED)}, the gradient {cosines(GRADIENT)}; by "
        f"the pattern it is {word}."
    )
    if pattern < slope:
        text += (
            " So it shows what the network weighs, the inputs included by which it subtracts the distractor, and not "
            "what the class put there."
        )
    return text


def each_column(results: Results, ours: str, theirs: str) -> str:
    """Column by column, how many kinds one is ahead and behind in."""
    parts = []
    for column in COLUMNS:
        held = words(results, ours, theirs, [column])
        parts.append(f"{column} {held[AHEAD]}/{held[LEVEL]}/{held[BEHIND]}")
    return f"{ours} beside {theirs}, kinds ahead/level/behind: {', '.join(parts)}."


def beside(results: Results, ours: str, theirs: str) -> str:
    """Two methods and in how many cells the one is ahead, level and behind."""
    held = words(results, ours, theirs)
    return f"**{ours}** beside **{theirs}** {held[AHEAD]}/{held[LEVEL]}/{held[BEHIND]}"


def says(results: Results, scales: Sequence[float]) -> list[str]:
    """What the numbers say, in sentences whose words come from them."""
    usual = f"kind by column at {USUAL} hidden layers, ahead/level/behind"
    found = [f"Cells, {usual}: {'; '.join(beside(results, ours, theirs) for ours, theirs in PAIRS)}."]
    found.append(each_column(results, CALIBRATED, GRADIENT))
    gaps = {
        (name, column): gap(one, column, CALIBRATED, GRADIENT)[1].mean
        for (name, depth), one in results.items()
        if depth == USUAL
        for column in COLUMNS
    }
    most, least = max(gaps, key=lambda at: gaps[at]), min(gaps, key=lambda at: gaps[at])
    found.append(
        f"The largest gain of the calibrated pullback over the gradient is {gaps[most]:+.3f} ({most[1]}, {most[0]}), "
        f"its worst {gaps[least]:+.3f} ({least[1]}, {least[0]}), the median over all cells "
        f"{median(gaps.values()):+.3f}."
    )
    if ("distractor", USUAL) in results:
        found.append(of_distractors(results["distractor", USUAL]))
    if scales:
        best = [best_scales(one, SLOPE, scales) for one in results.values() if one.swept is not None]
        fixed_ones = ", ".join(f"{temperature:g}" for temperature, _ in best)
        found.append(
            f"By cosine to the true slope the best T is {fixed_ones} and the best spread "
            f"{', '.join(f'{one:g}' for _, one in best)}, in the order of the kinds; {scales[0]:g} and "
            f"{scales[-1]:g} are the ends of what was tried."
        )
    return found


def page(results: Results, setup: Setup) -> str:
    """The Markdown page."""
    usual = {name: found for (name, depth), found in results.items() if depth == USUAL}
    texts = "".join(f"- {name}: {KINDS[name]().text}.\n" for name in usual)
    columns = "".join(f"- {column.name}: {column.text}.\n" for column in COLUMNS.values())
    parts = [
        f"# Known truth: gradient against soft pullback\n\n`python -m benchmarks.evidence.{STUDY}`\n",
        f"Perceptrons of {WIDTH} ReLUs a layer on 64 inputs, {setup.seeds} trainings of each (first weights and "
        f"{TRAINED_ON} training samples of its own), {setup.steps} steps. {setup.count} samples are explained, the "
        "same for all: the pullback of the sample's class minus the mean of the others, for which the best "
        f"classifier's slope is known. Temperatures are calibrated on {EXAMPLES} samples; SmoothGrad and "
        f"integrated gradients take {COPIES} points. Means over trainings, plus or minus half a 95 % interval. "
        f"Noise has deviation 1 in all data, {SHAKEN:g} where maps are asked to bear it.\n\n{texts}",
        f"Columns, all better high:\n\n{columns}\nIn `{AGAIN}` every network stands in two pairs, so its intervals are "
        "somewhat narrow.\n",
        "## What it says\n",
        "".join(f"- {sentence}\n" for sentence in says(results, setup.scales)),
        f"![Cosine to the true slope, share and stability by temperature, a panel for each kind]({STUDY}.svg)\n",
        "## Accuracy\n",
        accuracies(results),
    ]
    for ours, theirs in PAIRS:
        parts += [f"## {ours} minus {theirs}\n", versus(results, ours, theirs)]
    parts += ["## Depth: calibrated minus gradient\n"]
    parts += [f"{by_depth(results, column)}" for column in (SLOPE, SHARE, AGAIN, NOISE)]
    if setup.scales:
        parts += ["## Temperatures\n", scale_table(results, setup.scales)]
    headings = {column: column for column in COLUMNS}
    for (name, depth), found in results.items():
        parts += [f"## {name}, {depth} hidden layers\n", means(found.report, headings)]
    return "\n".join(parts)


def rows_of(results: Results) -> str:
    """Every mean as CSV."""
    reports = {f"{name}, depth {depth}": found.report for (name, depth), found in results.items()}
    swept = {f"{name}, temperatures": found.swept for (name, _), found in results.items() if found.swept is not None}
    return as_csv(reports | swept)


def main(arguments: Sequence[str] | None = None) -> Run:
    """Measure and write."""
    parser = parser_of(STUDY, "Gradient against soft pullback where the truth is known.", tuple(KINDS), COUNT)
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"networks of each kind and depth (default: {SEEDS})")
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS, help="hidden layers (default: 2 3 4)")
    parser.add_argument("--steps", type=int, default=Setup.steps, help=f"of training (default: {Setup.steps})")
    run, options = run_from(parser, STUDY, tuple(KINDS), arguments)
    if unknown := [name for name in run.names if name not in KINDS]:
        parser.error(f"there is no kind {', '.join(unknown)}; there are {', '.join(KINDS)}")
    if options.seeds < 2:
        parser.error("two networks or more are wanted: intervals are over them")
    if USUAL not in options.depths:
        parser.error(f"{USUAL} hidden layers are what the large tables are about: name them too")
    setup = Setup(run.names, tuple(options.depths), options.seeds, run.count, options.steps)
    results = measure(setup, run.build / STUDY / "rows.jsonl")
    run.write(".csv", rows_of(results))
    run.write(".svg", picture(results, setup.scales))
    run.write(".md", page(results, setup))
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
