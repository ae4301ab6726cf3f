"""One HTML page of an evaluation: tables and plots, nothing loaded from elsewhere.

The plots are SVG inside the page: for each column one line a method, its mean as a dot, its interval as a bar, every
picture as a faint mark.
"""

from __future__ import annotations

import math
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined

from fxpullback.export.evaluate.intervals import Mean
from fxpullback.export.evaluate.metrics import Column
from fxpullback.export.evaluate.report import Report

TEMPLATE = "evaluation.html.j2"
WIDTH, LEFT, RIGHT, ROW, FOOT = 560, 170, 20, 24, 26
TICKS = 5
RED, BLUE, GREY = "#c2452d", "#2d6fb8", "#9a9aa4"


def page(report: Report) -> str:
    """The page, self-contained."""
    text = (resources.files("fxpullback.export") / "assets" / TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(text).render(
        about=report.about,
        methods=report.methods,
        reference=report.reference,
        skipped=[str(skipped) for skipped in report.skipped],
        notes=report.notes,
        metrics=[
            {
                "name": metric.name,
                "text": metric.text,
                "columns": [_column(column, report) for column in metric.columns],
            }
            for metric in report.metrics
        ],
    )


def _column(column: Column, report: Report) -> dict[str, Any]:
    """What the template shows of one column."""
    measured = [name for name, _ in report.methods if report.values(column.name, name)]
    best = report.best(column)
    counts = [report.mean(column, name).count for name in measured]
    rows = [
        {
            "method": name,
            "mean": number(report.mean(column, name)),
            "gap": "" if name == report.reference else number(report.difference(column.name, name), signed=True),
            "sure": _is_sure(report.difference(column.name, name)) and name != report.reference,
            "better": _is_better(column, report.difference(column.name, name)),
            "best": name == best,
        }
        for name in measured
    ]
    return {
        "name": column.name,
        "text": column.text,
        "better": "more is better" if column.high else "less is better",
        "pictures": " to ".join(dict.fromkeys(str(n) for n in (min(counts), max(counts)))),
        "rows": rows,
        "plot": plot(column, report, measured),
    }


def number(mean: Mean, *, signed: bool = False) -> str:
    """A mean with its interval."""
    if not mean.count:
        return ""
    form = "+.3g" if signed else ".3g"
    if math.isnan(mean.low):
        return f"{mean.mean:{form}}"
    return f"{mean.mean:{form}} [{mean.low:.3g}, {mean.high:.3g}]"


def _is_sure(gap: Mean) -> bool:
    """Whether a difference's interval leaves 0 out."""
    return gap.count > 1 and (gap.low > 0 or gap.high < 0)


def _is_better(column: Column, gap: Mean) -> bool:
    return (gap.mean > 0) == column.high


def plot(column: Column, report: Report, methods: list[str]) -> dict[str, Any]:
    """Where everything of a plot stands, in pixels."""
    means = {name: report.mean(column, name) for name in methods}
    points = {name: list(report.values(column.name, name).values()) for name in methods}
    ends = [mean.low for mean in means.values()] + [mean.high for mean in means.values()]
    held = [value for value in (*ends, *(v for values in points.values() for v in values)) if math.isfinite(value)]
    low, high = min([0.0, *held]), max([0.0, *held])
    ticks = ticks_of(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def at(value: float) -> float:
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    lines = []
    for row, name in enumerate(methods):
        mean = means[name]
        whole = not math.isnan(mean.low)
        lines.append(
            {
                "name": name,
                "y": row * ROW + ROW // 2 + 4,
                "mean": at(mean.mean),
                "low": at(mean.low) if whole else None,
                "high": at(mean.high) if whole else None,
                "points": [at(value) for value in points[name]],
                "colour": _colour(name, report),
            }
        )
    return {
        "width": WIDTH,
        "height": len(methods) * ROW + FOOT + 4,
        "foot": len(methods) * ROW + 4,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "ticks": [{"x": at(tick), "text": f"{tick:g}"} for tick in ticks],
        "zero": at(0.0),
        "lines": lines,
    }


def _colour(name: str, report: Report) -> str:
    return RED if name == report.reference else GREY if name in report.controls else BLUE


def ticks_of(low: float, high: float) -> list[float]:
    """Round numbers over a range, a handful of them, the first at or below `low`, the last at or above `high`."""
    if high <= low:
        high = low + 1.0
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]
