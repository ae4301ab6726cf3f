"""Tables of means as Markdown and CSV, and what they say: ahead, level or behind, by paired differences."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.gallery_page import short_number
from fxpullback.export.evaluate import Report
from fxpullback.export.evaluate.intervals import Mean, difference
from fxpullback.export.evaluate.metrics import Column

AHEAD, LEVEL, BEHIND = "ahead", "level", "behind"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others numbers."""
    lines = [heads, ["---"] + ["--:"] * (len(heads) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(mean: Mean, *, best: bool = False, digits: Callable[[float], str] = short_number) -> str:
    """A mean and half its interval, such as `.54 ± .08`; the best in bold."""
    if not mean.count:
        return ""
    value = f"**{digits(mean.mean)}**" if best else digits(mean.mean)
    return value if mean.count == 1 else f"{value} ± {digits((mean.high - mean.low) / 2)}"


def interval(mean: Mean) -> str:
    """A mean and its interval, such as `.54 [.46, .62]`; the mean alone where one value has none."""
    if mean.count < 2:
        return short_number(mean.mean)
    return f"{short_number(mean.mean)} [{short_number(mean.low)}, {short_number(mean.high)}]"


def means(report: Report, columns: Mapping[str, str], methods: Sequence[str] | None = None) -> str:
    """Methods in rows, columns (name in the report: heading) in columns; the best of each but controls in bold."""
    asked = [column for column in report.columns if column.name in columns]
    names = [name for name, _ in report.methods] if methods is None else methods
    best = {column.name: best_of(report, column, [n for n in names if n not in report.controls]) for column in asked}
    rows = [
        [name, *(cell(report.mean(column, name), best=best[column.name] == name) for column in asked)] for name in names
    ]
    arrows = [f"{columns[column.name]} {'↑' if column.high else '↓'}" for column in asked]
    return markdown(["", *arrows], rows)


def best_of(report: Report, column: Column, methods: Sequence[str]) -> str | None:
    """The method with the best mean; None where none was measured."""
    found = {name: report.mean(column, name).mean for name in methods if report.values(column.name, name)}
    return (max if column.high else min)(found, key=lambda name: found[name]) if found else None


@dataclass(frozen=True)
class Verdict:
    """How one method does beside another in a column.

    Attributes:
        column: Which.
        ours: The one.
        theirs: The other.
        gap: Mean of the paired differences, positive where `ours` is better, with its interval.
    """

    column: Column
    ours: str
    theirs: str
    gap: Mean

    @property
    def word(self) -> str:
        """Ahead or behind where the interval leaves 0 out, else level."""
        if self.gap.low > 0:
            return AHEAD
        return BEHIND if self.gap.high < 0 else LEVEL


def verdict(report: Report, column: Column, ours: Sequence[str], theirs: Sequence[str]) -> Verdict | None:
    """The best of ours beside the best of theirs, picture by picture; None where either was not measured."""
    one, other = best_of(report, column, ours), best_of(report, column, theirs)
    if one is None or other is None:
        return None
    gap = difference(report.values(column.name, one), report.values(column.name, other))
    if not column.high:
        gap = Mean(gap.count, -gap.mean, -gap.high, -gap.low)
    return Verdict(column, one, other, gap)


def as_csv(reports: Mapping[str, Report]) -> str:
    """Every mean of every network, with its interval: what figures and tables are drawn from."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["network", "column", "method", "count", "mean", "low", "high"])
    for network, report in reports.items():
        for column in report.columns:
            for method, _ in report.methods:
                mean = report.mean(column, method)
                if mean.count:
                    numbers = [f"{value:.6g}" for value in (mean.mean, mean.low, mean.high)]
                    writer.writerow([network, column.name, method, mean.count, *numbers])
    return lines.getvalue()
