"""Rows of a study of its own as a report, so that tables, intervals and verdicts are those of every other study."""

from __future__ import annotations

from collections.abc import Sequence

from fxpullback.export.evaluate import Report
from fxpullback.export.evaluate.methods import Method
from fxpullback.export.evaluate.metrics import Column, Metric
from fxpullback.export.evaluate.rows import Row
from fxpullback.export.evaluate.trial import Trial, Values


def report_of_rows(
    study: str, rows: Sequence[Row], columns: Sequence[Column], reference: str, count: int, controls: Sequence[str] = ()
) -> Report:
    """A report of rows that were measured elsewhere.

    Args:
        study: Where.
        rows: Them.
        columns: What they may be of; those without rows are left out.
        reference: The method that others are compared with.
        count: How many pictures.
        controls: Methods that know nothing, where they were measured.
    """
    found = {row.column for row in rows}
    methods = tuple((name, "") for name in dict.fromkeys(row.method for row in rows))

    def measured(trial: Trial, method: Method) -> Values:
        raise NotImplementedError(f"these rows come from benchmarks.evidence.{study}, which has measured them already")

    metric = Metric(study, tuple(column for column in columns if column.name in found), measured, study)
    known = tuple(name for name, _ in methods if name in controls)
    return Report(tuple(rows), (metric,), methods, known, reference, (), {"count": count})


def column_of(report: Report, name: str) -> Column | None:
    """A column of the report; None where it was not measured."""
    return next((column for column in report.columns if column.name == name), None)
