"""Reports of values that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fxpullback.export.evaluate import Report
from fxpullback.export.evaluate.metrics import METRICS
from fxpullback.export.evaluate.rows import Row


def report(
    values: Mapping[tuple[str, str], Sequence[float]], controls: Sequence[str] = (), metrics: Sequence[str] = ()
) -> Report:
    """A report of values by column and method; pictures are numbered."""
    rows = [
        Row(column, method, str(number), value, "")
        for (column, method), all_of in values.items()
        for number, value in enumerate(all_of)
    ]
    names = {column for column, _ in values}
    found = tuple(
        metric for metric in METRICS if names & {column.name for column in metric.columns} or metric.name in metrics
    )
    methods = tuple((name, "") for name in dict.fromkeys(method for _, method in values))
    return Report(rows, found, methods, tuple(controls), methods[0][0], (), {"count": 3})  # type: ignore[arg-type]
