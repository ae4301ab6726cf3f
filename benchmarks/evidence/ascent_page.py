"""What the ascent study says: reports of its rows, the page and the figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.evidence.ascent_moves import DRAWN, KINDS, OWN, RUNNER_UP
from benchmarks.evidence.figures import COLOURS, figure, line, svg
from benchmarks.evidence.kept import column_of, report_of_rows
from benchmarks.evidence.tables import AHEAD, BEHIND, LEVEL, Verdict, cell, markdown, means, verdict
from benchmarks.gallery_page import short_number
from fxpullback.export.evaluate import Report
from fxpullback.export.evaluate.intervals import Mean
from fxpullback.export.evaluate.metrics import Column
from fxpullback.export.evaluate.rows import Row

STUDY = "ascent"
ALPHA, STEPS = 20.0, 5
UNMOVED, PULLBACK, GRADIENT = "unmoved", "pullback", "gradient"
GRADIENT_FAR, RANDOM = "gradient, as far", "random, as far"
CONTROLS = (UNMOVED, RANDOM)
OTHERS = "other classes"
"""Mean of the runner-up and the class that was drawn."""

MEASURES = {
    "top": (True, "share of the judges whose first class is the target"),
    "flip": (True, "the same of the judges whose first class it was not before"),
    "up": (True, "share of the judges whose probability of the target rose"),
    "gain": (True, "mean change of the judges' log-probability of the target"),
    "specific": (
        True,
        "how much higher that is than on the same picture moved towards the other two classes, mean of the judges",
    ),
    "self top": (True, "whether the target is the first class of the network that is explained"),
    "self gain": (True, "change of its own log-probability of the target"),
    "L2": (False, "distance over all values"),
    "RMS": (False, "root mean square of a value's change"),
    "MS-SSIM": (True, "likeness, 1 where equal"),
    "perceptual": (False, "LPIPS without learned weights, through SqueezeNet 1.0"),
}
COLUMNS = tuple(
    Column(f"{measure}, {kind}", high, f"{text}; {kind}")
    for measure, (high, text) in MEASURES.items()
    for kind in (*KINDS, OTHERS)
)


def called(method: str, alpha: float, steps: int) -> str:
    """The method at a step's length and a number of steps; the defaults go without saying."""
    return method if (alpha, steps) == (ALPHA, STEPS) else f"{method}, alpha {alpha:g}, K {steps}"


def report_of(rows: Sequence[Row], count: int) -> Report:
    """The rows of a network as a report; the two other classes of a picture are averaged besides."""
    pairs: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        measure, kind = row.column.rsplit(", ", 1)
        if kind in (RUNNER_UP, DRAWN):
            pairs.setdefault((measure, row.method, row.picture), []).append(row.value)
    both = [Row(f"{m}, {OTHERS}", method, name, sum(v) / len(v), "") for (m, method, name), v in pairs.items()]
    return report_of_rows(STUDY, (*rows, *both), COLUMNS, PULLBACK, count, CONTROLS)


def gap(report: Report, measure: str, kind: str, other: str) -> Verdict | None:
    """The pullback beside another method in one column."""
    column = column_of(report, f"{measure}, {kind}")
    return None if column is None else verdict(report, column, [PULLBACK], [other])


def told(one: Verdict | None) -> str:
    """A verdict in a cell: the word, and the gap."""
    if one is None:
        return ""
    numbers = f"{short_number(one.gap.mean)} [{short_number(one.gap.low)}, {short_number(one.gap.high)}]"
    return f"{one.word if one.word == LEVEL else f'**{one.word}**'}: {numbers}"


BESIDE = (
    ("flip", OTHERS),
    ("up", OTHERS),
    ("gain", OTHERS),
    ("specific", OTHERS),
    ("specific", RUNNER_UP),
    ("specific", DRAWN),
    ("specific", OWN),
    ("gain", OWN),
    ("self gain", OTHERS),
    ("MS-SSIM", OTHERS),
    ("perceptual", OTHERS),
)


def beside(reports: Mapping[str, Report], other: str) -> str:
    """The pullback beside another method, a row for each column, a column for each network."""
    rows = [
        [f"{measure}, {kind}", *(told(gap(report, measure, kind, other)) for report in reports.values())]
        for measure, kind in BESIDE
    ]
    return markdown(["", *reports], rows)


def judged(report: Report, kind: str) -> str:
    """What the judges make of the pictures that were moved towards a class."""
    measures = ("top", "gain", "specific") if kind == OWN else ("flip", "up", "gain", "specific", "self top")
    return means(report, {f"{measure}, {kind}": measure for measure in measures}, defaults(report))


def far(report: Report) -> str:
    """How far the pictures are, other classes."""
    moved = [name for name in defaults(report) if name != UNMOVED]
    return means(report, {f"{m}, {OTHERS}": m for m in ("L2", "RMS", "MS-SSIM", "perceptual")}, moved)


def defaults(report: Report) -> list[str]:
    """The methods at the default step and length."""
    known = [name for name, _ in report.methods]
    return [name for name in (UNMOVED, PULLBACK, GRADIENT, GRADIENT_FAR, RANDOM) if name in known]


def grid_of(report: Report) -> tuple[list[float], list[int]]:
    """The lengths of a step and the numbers of steps that were swept."""
    found = {(ALPHA, STEPS)} if PULLBACK in dict(report.methods) else set()
    for name, _ in report.methods:
        if ", alpha " in name:
            alpha, steps = name.split(", alpha ")[1].split(", K ")
            found.add((float(alpha), int(steps)))
    return sorted({alpha for alpha, _ in found}), sorted({steps for _, steps in found})


CELL = ("flip", "specific", "MS-SSIM")


def swept(report: Report) -> str:
    """A table: alpha and method in rows, K in columns; the measures of `CELL` in a cell."""
    alphas, lengths = grid_of(report)
    rows = []
    for alpha in alphas:
        for method in (PULLBACK, GRADIENT):
            at = [[_mean(report, m, called(method, alpha, k)) for m in CELL] for k in lengths]
            rows.append([f"{alpha:g}, {method}", *(" / ".join(cell(mean) for mean in means) for means in at)])
    return markdown(["alpha", *(f"K {steps}" for steps in lengths)], rows)


def _mean(report: Report, measure: str, method: str) -> Mean:
    column = column_of(report, f"{measure}, {OTHERS}")
    return Mean(0, *[float("nan")] * 3) if column is None else report.mean(column, method)


def picture(reports: Mapping[str, Report], sweeps: Mapping[str, Report]) -> str:
    """Specific gain against likeness on the way, a panel for each network; then against K for every alpha."""
    panels = len(reports) + len(sweeps)
    wide = min(4, panels)
    with figure(-(-panels // wide), wide, width=3.0, height=2.6) as (drawn, axes):
        free = iter(axes.flat)
        for name, report in reports.items():
            _way(next(free), name, report)
        for name, report in sweeps.items():
            _sweep(next(free), name, report)
        for axis in free:
            axis.set_axis_off()
        handles: dict[str, Any] = {}
        for axis in axes.flat:
            handles |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        drawn.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4, fontsize=8)
        return svg(drawn)


def _way(axis: Any, name: str, report: Report) -> None:
    """One network: from one step to the default's number, and the controls of the same length."""
    for number, method in enumerate((PULLBACK, GRADIENT)):
        names = [called(method, ALPHA, steps) for steps in grid_of(report)[1]]
        apart = [1 - _mean(report, "MS-SSIM", one).mean for one in names]
        line(axis, number, method, apart, [_mean(report, "specific", one) for one in names])
    for number, method in enumerate((GRADIENT_FAR, RANDOM), 2):
        at = _mean(report, "specific", method)
        reach = [[at.mean - at.low], [at.high - at.mean]]
        x = [1 - _mean(report, "MS-SSIM", method).mean]
        axis.errorbar(x, [at.mean], reach, color=COLOURS[number], fmt="^v"[number - 2], markersize=4, label=method)
    axis.axhline(0, color="#5d5d66", linewidth=0.8)
    axis.set(title=name, xlabel="1 - MS-SSIM", ylabel="specific gain, judges")


def _sweep(axis: Any, name: str, report: Report) -> None:
    """One network: the pullback as lines, the gradient dashed in the same colour."""
    alphas, lengths = grid_of(report)
    for number, alpha in enumerate(alphas, 3):
        colour = COLOURS[number % len(COLOURS)]
        for method, style in ((PULLBACK, "-"), (GRADIENT, ":")):
            y = [_mean(report, "specific", called(method, alpha, steps)).mean for steps in lengths]
            axis.plot(lengths, y, style, color=colour, linewidth=1.4, label=f"{method}, alpha {alpha:g}")
    axis.axhline(0, color="#5d5d66", linewidth=0.8)
    axis.set(title=f"{name}, swept", xlabel="K", ylabel="specific gain, judges")


def _count(reports: Mapping[str, Report], measure: str, kind: str, other: str) -> str:
    """In how many networks the pullback is ahead, level, behind."""
    words = [one.word for report in reports.values() if (one := gap(report, measure, kind, other)) is not None]
    return ", ".join(f"{word} on {words.count(word)}" for word in (AHEAD, LEVEL, BEHIND))


def _range(reports: Mapping[str, Report], measure: str, kind: str, method: str) -> str:
    """Smallest and largest mean over the networks."""
    found = [
        report.mean(column, method).mean
        for report in reports.values()
        if (column := column_of(report, f"{measure}, {kind}")) is not None
    ]
    return f"{short_number(min(found))} to {short_number(max(found))}"


def says(reports: Mapping[str, Report], sweeps: Mapping[str, Report]) -> str:
    """What the numbers say, in sentences that are made of them."""

    def span(measure: str, kind: str, method: str) -> str:
        return _range(reports, measure, kind, method)

    def words(measure: str, kind: str, other: str) -> str:
        return _count(reports, measure, kind, other)

    lines = [
        f"Moved along the pullback (alpha {ALPHA:g}, K {STEPS}) towards another class, that class becomes the first of "
        f"{span('flip', OTHERS, PULLBACK)} of the judges that had another (means by network); along the gradient of "
        f"{span('flip', OTHERS, GRADIENT)}, along a random direction as far of {span('flip', OTHERS, RANDOM)}. The "
        f"network that is explained is itself led there in {span('self top', OTHERS, PULLBACK)} of the pictures by the "
        f"pullback, in {span('self top', OTHERS, GRADIENT)} by the gradient.",
        f"The probability rises in {span('up', OTHERS, PULLBACK)} of the judges by the pullback, in "
        f"{span('up', OTHERS, GRADIENT)} by the gradient, and in {span('up', OTHERS, RANDOM)} by a random direction: "
        "a judge that gets less sure gives every unlikely class more, so rises and gains alone say little. The "
        f"specific gain is {span('specific', OTHERS, PULLBACK)} by the pullback, "
        f"{span('specific', OTHERS, GRADIENT)} by the gradient, {span('specific', OTHERS, RANDOM)} by a random "
        "direction.",
        f"Pullback beside gradient, {len(reports)} networks: flips {words('flip', OTHERS, GRADIENT)}; specific gain "
        f"{words('specific', OTHERS, GRADIENT)}, beside a gradient taken as far "
        f"{words('specific', OTHERS, GRADIENT_FAR)}.",
        f"The same K and alpha lead the pullback {span('L2', OTHERS, PULLBACK)} far (L2), the gradient "
        f"{span('L2', OTHERS, GRADIENT)}. Likeness to the picture (MS-SSIM): {words('MS-SSIM', OTHERS, GRADIENT)} "
        f"beside the gradient, {words('MS-SSIM', OTHERS, GRADIENT_FAR)} beside a gradient taken as far.",
        f"Towards the picture's own class: specific gain {words('specific', OWN, GRADIENT)} beside the gradient. The "
        f"judges keep or find that class in {span('top', OWN, PULLBACK)}, of the pictures unmoved in "
        f"{span('top', OWN, UNMOVED)}, along a random direction as far in {span('top', OWN, RANDOM)}.",
    ]
    lines += [_best(name, report) for name, report in sweeps.items()]
    return "".join(f"- {text}\n" for text in lines)


def _best(name: str, report: Report) -> str:
    """Which of the swept settings has the largest specific gain."""
    alphas, lengths = grid_of(report)
    at = {(a, k): _mean(report, "specific", called(PULLBACK, a, k)).mean for a in alphas for k in lengths}
    alpha, steps = max(at, key=lambda key: at[key])
    default = f", the default has {short_number(at[ALPHA, STEPS])}" if (ALPHA, STEPS) in at else ""
    return (
        f"Swept, {name}: the specific gain is largest at alpha {alpha:g}, K {steps} "
        f"({short_number(at[alpha, steps])}){default}; "
        f"{report.about['count']} pictures cannot tell neighbours apart."
    )


ABOUT = f"""# Pullback ascent, judged by other networks

`python -m benchmarks.evidence.ascent`. A picture is moved along its explanation, `fxpullback.unroll.Ascent`:
x_(k+1) = clip(x_k + alpha n(p(x_k))), alpha {ALPHA:g}, K {STEPS}, clipped to [-1, 1] after every step. n divides by the
L2 norm over all values of the picture, so a step is alpha long in units of [-1, 1] (before clipping) whatever the
explanation's size; nothing else is scaled. At 224 x 224 x 3 a step of 20 changes a value by .05 (root mean square).

Each picture is one that the network explained classifies correctly. It is moved towards three classes: its *{OWN}*; the
*{RUNNER_UP}*, the highest logit but that; and one *{DRAWN}* by seed from all others. *{OTHERS}* is the mean of the last
two. The judges are every other network of this page, unexplained: all were trained on ImageNet, and all were probably
trained on these pictures.

| measure | what |
|---|---|
"""
SETTING = f"""
*{PULLBACK}*: the default rules, temperatures calibrated on noise. *{GRADIENT}*: no rules, the same steps. Gradients of
one picture turn from step to step, so the same K and alpha lead less far or farther: *{GRADIENT_FAR}* takes the same
displacement, scaled until it is as long (L2, after clipping) as the pullback's. *{RANDOM}*: one normal direction,
scaled likewise; a control. *{UNMOVED}*: the picture as it was.

Perceptual distance is LPIPS (Zhang et al. 2018) without its learned weights, which fit SqueezeNet 1.1 alone: features
of the same seven layers of SqueezeNet 1.0, unit length at each place, squared differences averaged over places and
summed over layers: the paper's uncalibrated variant. SqueezeNet is a judge of the other networks too; where it is
explained itself, that column is left out. MS-SSIM: torchmetrics, pixels in [0, 1].

Means over pictures, plus or minus half a 95 % interval.
"""
FIGURE = (
    "Specific gain of the judges for another class against 1 - MS-SSIM, a panel for each network, on the way "
    "from one step to all; then against K for every alpha, the pullback solid, the gradient dotted"
)


def _tables(report: Report) -> list[str]:
    return [
        *(text for kind in KINDS for text in (f"Towards the class *{kind}*:\n", judged(report, kind))),
        "How far, other classes:\n",
        far(report),
    ]


def page(reports: Mapping[str, Report], sweeps: Mapping[str, Report]) -> str:
    """The Markdown page."""
    about = ABOUT + "".join(f"| {name} | {text} |\n" for name, (_, text) in MEASURES.items()) + SETTING
    parts = [about, "## What it says\n", says(reports, sweeps), f"![{FIGURE}]({STUDY}.svg)\n"]
    parts += [
        f"## The pullback beside the gradient\n\nMean difference picture by picture with its 95 % interval, positive "
        f"where the pullback is better. alpha {ALPHA:g}, K {STEPS}.\n",
        beside(reports, GRADIENT),
        "Beside the gradient taken as far:\n",
        beside(reports, GRADIENT_FAR),
    ]
    for name, report in reports.items():
        parts += [f"## {name}\n\n{report.about['count']} pictures.\n", *_tables(report)]
    for name, report in sweeps.items():
        parts += [
            f"## Step and length: {name}\n\n{report.about['count']} pictures, other classes; "
            f"{' / '.join(CELL)}. Swept on fewer networks and pictures than the rest.\n",
            swept(report),
        ]
    return "\n".join(parts)
