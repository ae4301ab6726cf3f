"""Rows on disk, one value a line, written as they come: an evaluation that was stopped goes on where it was.

A row is taken up again only where everything that its value hangs on is the same: the file, the settings, what made the
map, the picture as the model sees it, and its class. That is what its key says. Rows with other keys stay where they
are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fxpullback.contract.errors import EvaluateError


@dataclass(frozen=True)
class Row:
    """One value.

    Attributes:
        column: What was measured.
        method: What was measured by it.
        picture: On which picture.
        value: The value.
        key: What the value hangs on.
    """

    column: str
    method: str
    picture: str
    value: float
    key: str


class Rows:
    """The rows of a file, and those that are added.

    Args:
        path: The file, made when the first row comes; None for rows in memory alone.

    Raises:
        EvaluateError: The file is there and holds something else.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: list[Row] = [] if path is None or not path.exists() else _read(path)
        self._known = {self._name(row): row for row in self.rows}

    def get(self, column: str, method: str, picture: str, key: str) -> Row | None:
        """The row of that key, if it was measured."""
        return self._known.get((column, method, picture, key))

    def add(self, rows: Iterable[Row]) -> None:
        """Keep rows, on disk before this returns."""
        fresh = list(rows)
        self.rows += fresh
        self._known |= {self._name(row): row for row in fresh}
        if self.path is None or not fresh:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(vars_of(row)) + "\n" for row in fresh)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EvaluateError(
                f"{self.path}: rows cannot be written ({error.strerror}). What was there stays; make room, or name "
                "another folder with -o."
            ) from error

    @staticmethod
    def _name(row: Row) -> tuple[str, str, str, str]:
        return row.column, row.method, row.picture, row.key


def vars_of(row: Row) -> dict[str, object]:
    """A row as it is written."""
    return {name: getattr(row, name) for name in ("column", "method", "picture", "value", "key")}


def _read(path: Path) -> list[Row]:
    """The rows of a file. Half a line at its end, of a run that was stopped while it wrote, is cut off."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if text and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        with path.open("r+b") as file:
            file.truncate(len(text.encode()))
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            held = json.loads(line)
            rows.append(Row(held["column"], held["method"], held["picture"], float(held["value"]), held["key"]))
        except (ValueError, KeyError, TypeError) as error:
            raise EvaluateError(
                f"{path}, line {number}: this is no row of an evaluation. Move the file away, or name another folder "
                "with -o."
            ) from error
    return rows
