"""What the study of attacked pictures says: reports of its rows, the page and the figure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.evidence.adversarial_attacks import CLEAN, FGSM_8, NOISE, PGD_2, PGD_8, PGD_SHARE, PGD_STEPS, Attacked
from benchmarks.evidence.adversarial_maps import ENDED, FIRST, KINDS, SHARE, TRUE
from benchmarks.evidence.figures import figure, line, svg
from benchmarks.evidence.kept import column_of, report_of_rows
from benchmarks.evidence.tables import AHEAD, BEHIND, LEVEL, Verdict, interval, markdown, means, verdict
from benchmarks.gallery_page import short_number
from fxpullback.export.evaluate import METRICS, Report
from fxpullback.export.evaluate.intervals import Mean, difference
from fxpullback.export.evaluate.metrics import Column
from fxpullback.export.evaluate.rows import Row

STUDY = "adversarial"
METHODS = ("contribution", "pullback", "gradient", "SmoothGrad", "Grad-CAM")
INSTEAD = {"Grad-CAM": "weighted rollout"}
"""Where a network has tokens and no map, what is asked in place of Grad-CAM."""
OURS = ("contribution", "pullback")
REFERENCE = "contribution"

LIKENESS = {
    "spearman": "rank correlation of the two maps",
    "cosine": "cosine of the angle between them",
    "overlap": f"share of the strongest {SHARE:.0%} of places that stay among them; chance {short_number(SHARE)}",
}
AFTER = (NOISE, FGSM_8, PGD_2, PGD_8)
LAST = f"{PGD_8}, ended"
CONDITIONS = (CLEAN, FGSM_8, PGD_8, LAST)
SHOWN = ("occlusion", "occlusion, wide", "infidelity, share", "predicted change")


@dataclass(frozen=True)
class Found:
    """What was found on one network.

    Attributes:
        report: Columns `MEASURE, ATTACK, KIND` of maps before and after, and `METRIC, PICTURES`.
        made: The pictures by attack.
        classes: Their true classes.
    """

    report: Report
    made: Mapping[str, Attacked]
    classes: tuple[int, ...]


def columns() -> Iterator[Column]:
    """Every column there may be."""
    for attack in AFTER:
        for kind, text in KINDS.items():
            for measure, what in LIKENESS.items():
                yield Column(f"{measure}, {attack}, {kind}", True, f"{what}; {text}")
    for metric in METRICS:
        for column in metric.columns:
            for condition in CONDITIONS:
                yield replace(column, name=f"{column.name}, {condition}")


def report_of(rows: Sequence[Row], count: int) -> Report:
    """The rows of a network as a report."""
    return report_of_rows(STUDY, rows, tuple(columns()), REFERENCE, count)


def success(found: Mapping[str, Found]) -> str:
    """How many pictures each attack fools, before and after they were rounded to 8 bits."""
    heads = ["", *(name for name in next(iter(found.values())).made)]
    rows = []
    for name, one in found.items():
        cells = []
        for made in one.made.values():
            before, after = (
                sum(top != true for top, true in zip(tops, one.classes, strict=True))
                for tops in (made.before, made.after)
            )
            cells.append(f"{before} / {after} of {len(one.classes)}, {made.farthest:.0f}")
        rows.append([name, *cells])
    return markdown(heads, rows)


def likeness(report: Report, measure: str) -> str:
    """How alike maps are after each attack: a table of methods."""
    wanted = {f"{measure}, {attack}, {TRUE}": f"{attack}, {TRUE}" for attack in AFTER}
    wanted |= {
        f"{measure}, {attack}, {kind}": f"{attack}, {kind}" for attack in (PGD_2, PGD_8) for kind in (ENDED, FIRST)
    }
    return means(report, wanted)


def measured(report: Report, metric: str) -> str:
    """One metric on clean and attacked pictures: a table of methods."""
    return means(report, {f"{metric}, {condition}": condition for condition in CONDITIONS})


def changed(report: Report, metric: str) -> str:
    """What each attack does to a metric, picture by picture: methods in rows."""
    rows = []
    for method, _ in report.methods:
        cells = []
        for condition in CONDITIONS[1:]:
            gap = difference(
                report.values(f"{metric}, {condition}", method), report.values(f"{metric}, {CLEAN}", method)
            )
            cells.append(_told(gap))
        rows.append([method, *cells])
    return markdown(["", *(f"{condition} - {CLEAN}" for condition in CONDITIONS[1:])], rows)


def _told(gap: Mean) -> str:
    if not gap.count:
        return ""
    word = f"**{direction(gap)}**: " if direction(gap) != HELD else ""
    return f"{word}{interval(gap)}"


ROSE, FELL, HELD = "rises", "falls", "no change told"


def direction(gap: Mean) -> str:
    """Whether a mean difference is told apart from 0, and which way."""
    if gap.low > 0:
        return ROSE
    return FELL if gap.high < 0 else HELD


def theirs(report: Report) -> list[str]:
    """The baselines."""
    return [name for name, _ in report.methods if name not in OURS]


def best(report: Report, name: str, ours: Sequence[str] = OURS) -> Verdict | None:
    """Ours beside the best baseline in one column."""
    column = column_of(report, name)
    return None if column is None else verdict(report, column, list(ours), theirs(report))


def summary(found: Mapping[str, Found]) -> str:
    """The best of ours beside the best baseline: likeness after attacks, and metrics on every kind of pictures."""
    names = [f"{measure}, {attack}, {TRUE}" for measure in LIKENESS for attack in AFTER]
    names += [f"{metric}, {condition}" for metric in SHOWN for condition in CONDITIONS]
    rows = [[name, *(_verdict(best(one.report, name)) for one in found.values())] for name in names]
    return markdown(["", *found], rows)


def _verdict(one: Verdict | None) -> str:
    if one is None:
        return ""
    word = one.word if one.word == LEVEL else f"**{one.word}**"
    gap = interval(one.gap)
    return f"{word}: {one.ours} to {one.theirs}, {gap}"


PANELS: dict[str, Callable[[str], str]] = {
    "spearman": lambda attack: f"spearman, {attack}, {TRUE}",
    "occlusion, wide": lambda condition: f"occlusion, wide, {condition}",
    "infidelity, share": lambda condition: f"infidelity, share, {condition}",
}


def picture(found: Mapping[str, Found]) -> str:
    """For each network: likeness of maps by attack, and two metrics by kind of pictures."""
    with figure(len(PANELS), len(found), width=3.3, height=2.4) as (drawn, axes):
        for down, (title, named) in enumerate(PANELS.items()):
            across = AFTER if title in LIKENESS else CONDITIONS
            for place, (name, one) in enumerate(found.items()):
                _panel(axes[down, place], one.report, [named(label) for label in across])
                axes[down, place].set(title=f"{name}: {title}")
                axes[down, place].set_xticks(range(len(across)), across, fontsize=7)
        handles: dict[str, Any] = {}
        for axis in axes.flat:
            handles |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        drawn.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=6, fontsize=8)
        return svg(drawn)


def _panel(axis: Any, report: Report, names: Sequence[str]) -> None:
    known = (*METHODS, *INSTEAD.values())
    for method, _ in report.methods:
        points = [
            (x, report.mean(column, method)) for x, name in enumerate(names) if (column := column_of(report, name))
        ]
        points = [(x, mean) for x, mean in points if mean.count]
        if points:
            line(axis, known.index(method), method, [x for x, _ in points], [mean for _, mean in points])


def says(found: Mapping[str, Found]) -> str:
    """What the numbers say, in sentences that are made of them."""
    reports = {name: one.report for name, one in found.items()}
    lost = sum(
        before != true == after
        for one in found.values()
        for made in one.made.values()
        for before, after, true in zip(made.before, made.after, one.classes, strict=True)
    )
    lines = [
        f"Rounding to 8 bits undid the attack on {lost} pictures of all networks and attacks together; "
        f"{PGD_8} still fools {_fooled(found, PGD_8)}, {PGD_2} {_fooled(found, PGD_2)}, and random signs of the same "
        f"size as the former {_fooled(found, NOISE)}.",
        f"After {PGD_8} the map of the true class keeps a rank correlation with that before of "
        + "; ".join(_spread(name, one, f"spearman, {PGD_8}, {TRUE}") for name, one in reports.items())
        + ". After random signs: "
        + "; ".join(_spread(name, one, f"spearman, {NOISE}, {TRUE}") for name, one in reports.items())
        + ".",
        "Steadier of ours beside the steadiest baseline, over networks, attacks and measures, for the true class: "
        + _words(best(one, f"{m}, {a}, {TRUE}") for one in reports.values() for m in LIKENESS for a in AFTER)
        + ". Steady is not right: a map that knows nothing of the network is steadiest.",
        f"Does the map of the first class show that another class is first? After {PGD_8} it has a rank correlation "
        "with that of the true class before of "
        + "; ".join(_spread(name, one, f"spearman, {PGD_8}, {FIRST}") for name, one in reports.items())
        + ": the nearer to 1, the less a reader sees of it.",
        f"How faithful ours is beside the best baseline, over {', '.join(SHOWN)}: on clean pictures "
        f"{_metric_words(reports, CLEAN)}; after {FGSM_8} {_metric_words(reports, FGSM_8)}; after {PGD_8} "
        f"{_metric_words(reports, PGD_8)}, for the class it ended in {_metric_words(reports, LAST)}.",
    ]
    return "".join(f"- {text}\n" for text in lines)


def _fooled(found: Mapping[str, Found], attack: str) -> str:
    tops = [
        top != true for one in found.values() for top, true in zip(one.made[attack].after, one.classes, strict=True)
    ]
    return f"{sum(tops)} of {len(tops)}"


def _spread(name: str, report: Report, column: str) -> str:
    """Means of every method, the largest first."""
    known = column_of(report, column)
    assert known is not None, "measured on every picture"
    held = {method: report.mean(known, method).mean for method, _ in report.methods}
    order = sorted((m for m in held if not math.isnan(held[m])), key=lambda m: -held[m])
    return f"{name}: " + ", ".join(f"{method} {short_number(held[method])}" for method in order)


def _words(found: Iterator[Verdict | None] | Any) -> str:
    words = Counter(one.word for one in found if one is not None)
    return f"ahead in {words[AHEAD]}, level in {words[LEVEL]}, behind in {words[BEHIND]}"


def _metric_words(reports: Mapping[str, Report], condition: str) -> str:
    return _words(best(one, f"{metric}, {condition}") for one in reports.values() for metric in SHOWN)


def moved(reports: Mapping[str, Report]) -> str:
    """In how many cells, of networks and metrics, each method gets better, worse, or neither: a table."""
    rows = []
    for method in dict.fromkeys(name for report in reports.values() for name, _ in report.methods):
        cells = []
        for condition in CONDITIONS[1:]:
            words = Counter(
                direction(gap) for report in reports.values() for gap in _gaps(report, method, condition) if gap.count
            )
            cells.append(f"{words[ROSE]} / {words[FELL]} / {words[HELD]}")
        rows.append([method, *cells])
    return markdown(["", *CONDITIONS[1:]], rows)


def _gaps(report: Report, method: str, condition: str) -> Iterator[Mean]:
    """What happens to each metric, positive where it gets better."""
    for metric in SHOWN:
        column = column_of(report, f"{metric}, {condition}")
        if column is not None:
            was, now = (report.values(f"{metric}, {at}", method) for at in (CLEAN, condition))
            gap = difference(now, was)
            yield gap if column.high else Mean(gap.count, -gap.mean, -gap.high, -gap.low)


ABOUT = f"""# Attacked pictures

`python -m benchmarks.evidence.adversarial`. Pictures that a network classifies correctly are attacked so that it does
not: FGSM (Goodfellow et al. 2014) and PGD (Madry et al. 2017; {PGD_STEPS} steps of {PGD_SHARE:g} eps, random start by
seed, projected after each), untargeted, through the gradient of the network itself. The number behind an attack is eps
in steps of 8 bits: 8 is 8/255 of the range of a pixel, 16/255 in units of [-1, 1]. *{NOISE}*: every value 8 steps up or
down at random; what that changes is no attack's doing. Attacked pictures are written as PNG at the network's own size,
so they are rounded to 8 bits, and read by the served file without resizing: everything below is about what is in the
files. The networks were not trained against attacks.

Maps are compared before and after: Spearman's rank correlation, cosine, and the {LIKENESS["overlap"]}.
Kinds: *{TRUE}*, {KINDS[TRUE]}; *{ENDED}*, {KINDS[ENDED]}, of fooled pictures; *{FIRST}*,
{KINDS[FIRST]}, of fooled pictures: what a reader sees who asks for the first class,
which should change. Pullback, gradient and SmoothGrad are absolute values summed over colours, as everywhere.

Metrics (docs/evaluate.md) explain the *true* class on {CLEAN}, {FGSM_8} and {PGD_8} pictures, also where the network is
wrong; on *{LAST}* the class that the attack ended in, of fooled pictures. Insertion and mosaics are left out: the
probability of the true class is next to nothing once a picture is attacked, and a mosaic halves pictures, which undoes
the attack. Infidelity is over 50 random squares; the rest as usual. Grad-CAM has no map in a transformer: weighted
rollout stands in its place there.

Means over pictures, plus or minus half a 95 % interval.
"""
FIGURE = (
    "A column for each network: rank correlation of the true class's map before and after each attack; occlusion "
    "correlation and infidelity on clean and attacked pictures"
)


def page(found: Mapping[str, Found]) -> str:
    """The Markdown page."""
    parts = [
        ABOUT,
        "## What it says\n",
        says(found),
        f"![{FIGURE}]({STUDY}.svg)\n",
        "## What the attacks do\n\nFooled before / after rounding to 8 bits, and by how many steps of 8 bits a value "
        "of the file differs from the clean one's at most.\n",
        success(found),
        "## The best of ours beside the best baseline\n\nBoth chosen by their means. The mean difference picture by "
        "picture with its 95 % interval, positive where ours is better; for maps, where it changes less.\n",
        summary(found),
        "## Faithfulness to attacked pictures\n\nAgainst clean pictures, picture by picture: in how many cells, "
        f"networks times {len(SHOWN)} metrics, a method gets better / worse / is not told apart. On *{LAST}* the class "
        "is another.\n",
        moved({name: one.report for name, one in found.items()}),
    ]
    for name, one in found.items():
        parts.append(f"## {name}\n\n{len(one.classes)} pictures.\n")
        for measure, text in LIKENESS.items():
            parts += [f"Maps before and after, {measure}: {text}.\n", likeness(one.report, measure)]
        for metric in SHOWN:
            parts += [f"{metric}:\n", measured(one.report, metric), changed(one.report, metric)]
    return "\n".join(parts)
