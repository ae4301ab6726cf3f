"""Every configuration of ours beside every baseline, on every network: faithfulness, localisation, sensitivity.

`python -m benchmarks.evidence.baselines` writes results/baselines.md, .csv and .svg: for each network a table, who is
ahead in each column, and infidelity against max-sensitivity. Hours on one core; stopped, it goes on where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from benchmarks.evidence.command import Run, run_of
from benchmarks.evidence.figures import COLOURS, MARKERS, figure, legend, svg
from benchmarks.evidence.tables import AHEAD, BEHIND, LEVEL, Verdict, as_csv, interval, markdown, means, verdict
from benchmarks.evidence.variants import Variant, measured
from fxpullback.export.evaluate import Report
from fxpullback.unroll import Double

STUDY = "baselines"
NAMES = ("squeezenet1_0", "mobilenetv3_small", "mobilenetv2", "efficientnet_lite0", "vit_tiny", "cifar_resnet20")
COUNT = 12
ASKED = (
    "occlusion",
    "insertion",
    "mosaic",
    "infidelity",
    "faithfulness-correlation",
    "faithfulness-estimate",
    "monotonicity",
    "max-sensitivity",
    "random-logit",
)
COLUMNS = {
    "occlusion": "occ",
    "occlusion, wide": "occ2",
    "insertion - deletion": "i-d",
    "grid pointing": "GP",
    "pointing game": "hit",
    "infidelity, share": "infidelity",
    "predicted change": "predicted",
    "faithfulness correlation": "correlation",
    "faithfulness estimate": "estimate",
    "monotonicity": "monotonicity",
    "max-sensitivity": "sensitivity",
    "random logit": "random logit",
}
JUDGED = tuple(name for name in COLUMNS if name != "random logit")
"""The columns of faithfulness, localisation and stability: those that a winner is named in."""
SHARES = ("pullback * input", "contribution", "focus")
STANDARD = "contribution"
"""The one method that is asked whether it will do everywhere: what `explain` draws first."""


def double_of(side: int) -> Variant:
    """Double pullback, its step as long for each pixel as 10 is at 224 x 224."""
    return Variant("double", program=Double(alpha=10.0 * side / 224))


def ours_of(report: Report) -> list[str]:
    """The methods of files of ours."""
    own = ("pullback", *SHARES)
    return [name for name, _ in report.methods if name in own or name.startswith("double ")]


def theirs_of(report: Report) -> list[str]:
    """The baselines."""
    ours = ours_of(report)
    return [name for name, _ in report.methods if name not in ours and name not in report.controls]


def verdicts(report: Report, ours: Sequence[str], theirs: Sequence[str]) -> list[Verdict]:
    """One for each column that is judged."""
    found = [verdict(report, column, ours, theirs) for column in report.columns if column.name in JUDGED]
    return [one for one in found if one is not None]


def told(one: Verdict) -> str:
    """A verdict in a cell: the word, the two methods, the gap."""
    gap = interval(one.gap)
    word = f"**{one.word}**" if one.word != LEVEL else one.word
    return f"{word}: {one.ours} to {one.theirs}, {gap}"


def summary(reports: Mapping[str, Report]) -> str:
    """For each column and network: the best of ours beside the best baseline."""
    heads = ["", *reports]
    found = {name: {one.column.name: one for one in _best(report)} for name, report in reports.items()}
    rows = [
        [COLUMNS[column], *(told(found[name][column]) if column in found[name] else "" for name in reports)]
        for column in JUDGED
    ]
    words = Counter(one.word for verdicts in found.values() for one in verdicts.values())
    text = (
        f"Of {words.total()} cells ours is ahead in {words[AHEAD]}, level in {words[LEVEL]}, behind in {words[BEHIND]}."
    )
    return f"{markdown(heads, rows)}\n{text}\n"


def _best(report: Report) -> list[Verdict]:
    return verdicts(report, ours_of(report), theirs_of(report))


def standard(reports: Mapping[str, Report]) -> str:
    """For each network: in how many columns the one default is best of all, or not told apart from the best."""
    rows, whole = [], Counter[str]()
    for name, report in reports.items():
        others = [other for other in (*ours_of(report), *theirs_of(report)) if other != STANDARD]
        found = verdicts(report, [STANDARD], others)
        words = Counter(one.word for one in found)
        whole += words
        behind = "; ".join(f"{COLUMNS[v.column.name]}: {v.theirs}" for v in found if v.word == BEHIND)
        rows.append([name, f"{words[AHEAD] + words[LEVEL]} of {words.total()}", behind])
    good = whole[AHEAD] + whole[LEVEL]
    return f"{markdown(['', 'best, or level with it', 'behind'], rows)}\nTogether {good} of {whole.total()} columns.\n"


def picture(reports: Mapping[str, Report]) -> str:
    """Infidelity against max-sensitivity, a panel for each network."""
    width = min(3, len(reports))
    with figure(-(-len(reports) // width), width, width=3.4, height=2.9) as (drawn, axes):
        places: dict[str, int] = {}
        for axis, (name, report) in zip(axes.flat, reports.items(), strict=False):
            columns = {column.name: column for column in report.columns}
            across, up = columns["max-sensitivity"], columns["infidelity, share"]
            for method in (*ours_of(report), *theirs_of(report)):
                x, y = report.mean(across, method), report.mean(up, method)
                if x.count and y.count:
                    number = places.setdefault(method, len(places))
                    ours = method in ours_of(report)
                    axis.scatter(
                        [x.mean],
                        [y.mean],
                        color=COLOURS[number % len(COLOURS)],
                        marker=MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
                        s=44 if ours else 22,
                        edgecolors="black" if ours else "none",
                        linewidths=0.8,
                        label=method,
                    )
            axis.set(title=name, xlabel="max-sensitivity", ylabel="infidelity, share")
        for axis in list(axes.flat)[len(reports) :]:
            axis.set_axis_off()
        legend(drawn, axes, loc="outside right center", fontsize=8)
        return svg(drawn)


ABOUT = """# Ours beside every baseline

`python -m benchmarks.evidence.baselines`. Means over correctly classified pictures, plus or minus half a 95 % interval;
the best of each column but controls in bold. What each column says: docs/evaluate.md.

## The best of ours beside the best baseline

Each cell: the best of our methods, the best baseline, and the mean difference picture by picture with its 95 %
interval, positive where ours is better. Both are chosen by their means, so each side has the luck of the best of
several.
"""
FIGURE = "Infidelity against max-sensitivity, a panel for each network; methods of ours have a black rim"


def page(reports: Mapping[str, Report]) -> str:
    """The Markdown page."""
    parts = [
        ABOUT,
        summary(reports),
        "## One default\n",
        f"`{STANDARD}`, with no choice for a network, beside the best of everything else, ours included.\n",
        standard(reports),
        f"![{FIGURE}](baselines.svg)\n",
    ]
    for name, report in reports.items():
        parts += [f"## {name}\n", f"{report.about['count']} pictures.\n", means(report, COLUMNS)]
        if report.skipped:
            parts.append("Left out:\n\n" + "".join(f"- {skipped}\n" for skipped in report.skipped))
    return "\n".join(parts)


def measure(run: Run) -> dict[str, Report]:
    """The report of every network."""
    return {
        network.name: measured(run, network, ASKED, variants=[double_of(network.preprocessing.size[0])], model=True)
        for network in run.networks()
    }


def main(arguments: Sequence[str] | None = None) -> Run:
    """Measure and write."""
    run = run_of(STUDY, "Ours beside every baseline.", NAMES, COUNT, arguments)
    reports = measure(run)
    run.write(".csv", as_csv(reports))
    run.write(".svg", picture(reports))
    run.write(".md", page(reports))
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
