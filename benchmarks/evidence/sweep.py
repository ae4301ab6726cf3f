"""What came of sweeping a number: tables, the best value, how the default does beside it, lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.evidence.figures import figure, legend, line, svg
from benchmarks.evidence.tables import Verdict, cell, interval, markdown, verdict
from fxpullback.export.evaluate import Report
from fxpullback.export.evaluate.intervals import Mean
from fxpullback.export.evaluate.metrics import Column


@dataclass(frozen=True)
class Panel:
    """One number that is looked at.

    Attributes:
        column: Its column in the report.
        kind: Of which map.
        heading: What it is called here.
    """

    column: str
    kind: str
    heading: str

    def of(self, variant: str | None) -> str:
        """The method of a variant, or of the default file."""
        return self.kind if variant is None else f"{variant} {self.kind}"


PANELS = (
    Panel("infidelity, share", "pullback", "infidelity"),
    Panel("predicted change", "pullback", "predicted"),
    Panel("occlusion, wide", "contribution", "occ2"),
    Panel("grid pointing", "contribution", "GP"),
)


@dataclass(frozen=True)
class Sweep:
    """One network's report, and what was swept.

    Attributes:
        report: The report.
        kinds: For each thing that was swept, its values and the variant of each; None for the default.
    """

    report: Report
    kinds: Mapping[str, Mapping[float, str | None]]

    @property
    def panels(self) -> dict[Panel, Column]:
        """Those that were measured, in order."""
        known = {column.name: column for column in self.report.columns}
        measured = [panel for panel in PANELS if self.report.values(panel.column, panel.of(None))]
        return {panel: known[panel.column] for panel in measured}

    def at(self, panel: Panel, variant: str | None) -> Mean:
        """A mean."""
        return self.report.mean(self.panels[panel], panel.of(variant))

    def ranked(self, panel: Panel, kind: str) -> list[float]:
        """The values of a kind, the best first."""
        places = self.kinds[kind]
        high = self.panels[panel].high
        return sorted(places, key=lambda value: self.at(panel, places[value]).mean, reverse=high)

    def best(self, panel: Panel) -> tuple[str, float, Verdict | None]:
        """Kind and value of the best mean of all kinds, and the default beside it; None where it is the default."""
        column = self.panels[panel]
        tops = [(kind, self.ranked(panel, kind)[0]) for kind in self.kinds]
        sign = 1 if column.high else -1
        kind, value = max(tops, key=lambda top: sign * self.at(panel, self.kinds[top[0]][top[1]]).mean)
        variant = self.kinds[kind][value]
        if variant is None:
            return kind, value, None
        return kind, value, verdict(self.report, column, [panel.of(None)], [panel.of(variant)])

    def chosen(self, kind: str) -> float:
        """The value of the best mean rank over all numbers."""
        orders = [self.ranked(panel, kind) for panel in self.panels]
        return min(self.kinds[kind], key=lambda value: sum(order.index(value) for order in orders))


def table(sweep: Sweep, others: Mapping[str, str]) -> str:
    """A line for each value, a column for each number of each kind, the best of its column in bold.

    Args:
        sweep: What was measured.
        others: Further variants, and what their lines are called.
    """
    columns = [(panel, kind) for panel in sweep.panels for kind in sweep.kinds]
    arrows = {panel: "↑" if column.high else "↓" for panel, column in sweep.panels.items()}
    rows = []
    for value in sorted({value for places in sweep.kinds.values() for value in places}):
        cells = [f"{value:g}"]
        for panel, kind in columns:
            places = sweep.kinds[kind]
            best = sweep.ranked(panel, kind)[0] == value
            cells.append(cell(sweep.at(panel, places[value]), best=best) if value in places else "")
        rows.append(cells)
    first = next(iter(sweep.kinds))
    for variant, name in others.items():
        rows.append([name, *(cell(sweep.at(panel, variant)) if kind == first else "" for panel, kind in columns)])
    return markdown(["", *(f"{panel.heading}, {kind} {arrows[panel]}" for panel, kind in columns)], rows)


def beside_best(sweeps: Mapping[str, Sweep]) -> str:
    """For each network and number the best value of all kinds, and the default beside it."""
    rows = []
    for name, sweep in sweeps.items():
        rows.append([name, *(_told(sweep, panel) if panel in sweep.panels else "" for panel in PANELS)])
    return markdown(["", *(panel.heading for panel in PANELS)], rows)


def _told(sweep: Sweep, panel: Panel) -> str:
    kind, value, one = sweep.best(panel)
    if one is None:
        return "the default"
    gap = interval(one.gap)
    return f"{kind} {value:g}: default {one.word}, {gap}"


def chosen(sweeps: Mapping[str, Sweep]) -> str:
    """For each network and kind the value of the best mean rank."""
    kinds = list(dict.fromkeys(kind for sweep in sweeps.values() for kind in sweep.kinds))
    rows = [
        [name, *(f"{sweep.chosen(kind):g}" if kind in sweep.kinds else "" for kind in kinds)]
        for name, sweep in sweeps.items()
    ]
    return markdown(["", *kinds], rows)


def picture(sweeps: Mapping[str, Sweep], label: str) -> str:
    """Networks in columns, numbers in rows, a line for each kind."""
    with figure(len(PANELS), len(sweeps), width=2.1, height=1.9) as (drawn, axes):
        for column, (name, sweep) in enumerate(sweeps.items()):
            axes[0, column].set_title(name)
            axes[-1, column].set_xlabel(label)
            for row, panel in enumerate(PANELS):
                axis = axes[row, column]
                if panel not in sweep.panels:
                    axis.set_axis_off()
                    continue
                for number, (kind, places) in enumerate(sweep.kinds.items()):
                    line(axis, number, kind, list(places), [sweep.at(panel, variant) for variant in places.values()])
                axis.set_xscale("log")
                axis.set_xticks([0.1, 0.3, 1.0], ["0.1", "0.3", "1"], minor=False)
                axis.set_xticks([], minor=True)
                if column == 0:
                    axis.set_ylabel(panel.heading)
        legend(drawn, axes, loc="outside lower center", ncols=3)
        return svg(drawn)


def page(about: str, sweeps: Mapping[str, Sweep], image: str, others: Mapping[str, str]) -> str:
    """The Markdown page."""
    words = [one.word for sweep in sweeps.values() for panel in sweep.panels if (one := sweep.best(panel)[2])]
    whole = sum(len(sweep.panels) for sweep in sweeps.values())
    count = {word: words.count(word) for word in ("level", "behind")}
    parts = [
        about,
        "## The best, and the default beside it\n",
        "The default minus the best value, picture by picture, with its 95 % interval; positive where the default is "
        "better.\n",
        beside_best(sweeps),
        f"The default is the best in {whole - len(words)} of {whole} numbers, level with the best in {count['level']}, "
        f"behind in {count['behind']}.\n",
        "## The best value of each kind\n",
        "By mean rank over the numbers:\n",
        chosen(sweeps),
        f"![Lines for each network and number]({image})\n",
    ]
    for name, sweep in sweeps.items():
        parts += [f"## {name}\n", f"{sweep.report.about['count']} pictures.\n", table(sweep, others)]
    return "\n".join(parts)
