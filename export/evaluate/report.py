"""What an evaluation found: rows, means with intervals, differences; as CSV, JSON and text."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from fxpullback.export.evaluate.intervals import FEW, Mean, difference, mean_of
from fxpullback.export.evaluate.metrics import Column, Metric
from fxpullback.export.evaluate.rows import Row


@dataclass(frozen=True)
class Skipped:
    """What was left out.

    Attributes:
        metric: Which metric.
        method: For which method; None for all of them.
        reason: Why, and what to do.
    """

    metric: str
    method: str | None
    reason: str

    def __str__(self) -> str:
        return f"{self.metric}{'' if self.method is None else f' of {self.method}'}: {self.reason}"


@dataclass(frozen=True)
class Report:
    """The outcome of an evaluation.

    Attributes:
        rows: One for each value.
        metrics: What was measured, in order.
        methods: Name and text of each method, in order.
        controls: Names of those that know nothing of the network.
        reference: The method that others are compared with.
        skipped: What was left out, and why.
        about: The file, the pictures, the settings.
    """

    rows: tuple[Row, ...]
    metrics: tuple[Metric, ...]
    methods: tuple[tuple[str, str], ...]
    controls: tuple[str, ...]
    reference: str
    skipped: tuple[Skipped, ...]
    about: Mapping[str, Any]

    @property
    def columns(self) -> tuple[Column, ...]:
        """Every column of the metrics."""
        return tuple(column for metric in self.metrics for column in metric.columns)

    @cached_property
    def _values(self) -> dict[tuple[str, str], dict[str, float]]:
        found: dict[tuple[str, str], dict[str, float]] = {}
        for row in self.rows:
            found.setdefault((row.column, row.method), {})[row.picture] = row.value
        return found

    def values(self, column: str, method: str) -> dict[str, float]:
        """The values of one column and method, by picture."""
        return self._values.get((column, method), {})

    def mean(self, column: Column, method: str) -> Mean:
        """Their mean over the pictures, with its interval."""
        return mean_of(list(self.values(column.name, method).values()), hits=column.hits)

    def best(self, column: Column) -> str | None:
        """The method with the best mean, controls aside; None where nothing was measured."""
        named = [name for name, _ in self.methods if name not in self.controls and self.values(column.name, name)]
        means = {name: self.mean(column, name).mean for name in named}
        return (max if column.high else min)(means, key=lambda name: means[name]) if means else None

    def difference(self, column: str, method: str) -> Mean:
        """Mean difference to the reference, over the pictures of both, with its interval."""
        return difference(self.values(column, method), self.values(column, self.reference))

    @property
    def notes(self) -> list[str]:
        """What a reader must know to read the numbers."""
        found, count = [], int(self.about["count"])
        if count < 2:
            found.append("One picture has no interval: give two or more.")
        elif count < FEW:
            found.append(f"{count} pictures make wide and rough intervals: give {FEW} or more, better 50.")
        return found

    def cells(self) -> list[dict[str, Any]]:
        """One entry for each column and method: mean, interval, difference to the reference."""
        found = []
        for column in self.columns:
            for method, _ in self.methods:
                mean, gap = self.mean(column, method), self.difference(column.name, method)
                if mean.count:
                    entry = {"column": column.name, "method": method, "better": "high" if column.high else "low"}
                    found.append(entry | asdict(mean) | {f"difference_{k}": v for k, v in asdict(gap).items()})
        return found

    def csv(self) -> str:
        """The cells as CSV; a number that is not there is empty."""
        cells = self.cells()
        file = io.StringIO()
        writer = csv.DictWriter(file, list(cells[0]) if cells else ["column", "method"], lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _plain(value, "") for key, value in cell.items()} for cell in cells)
        return file.getvalue()

    def json(self) -> str:
        """Everything but the rows, as JSON; a number that is not there is null."""
        held = {
            "about": dict(self.about),
            "reference": self.reference,
            "methods": dict(self.methods),
            "columns": {column.name: column.text for column in self.columns},
            "cells": [{key: _plain(value, None) for key, value in cell.items()} for cell in self.cells()],
            "skipped": [asdict(skipped) for skipped in self.skipped],
            "notes": self.notes,
        }
        return json.dumps(held, indent=1, ensure_ascii=False) + "\n"


def _plain(value: Any, absent: Any) -> Any:
    return absent if isinstance(value, float) and not math.isfinite(value) else value
