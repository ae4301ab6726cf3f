"""The networks CI certifies: cheap ones that together use every rule and VJP rule that any cheap one uses.

`python -m benchmarks.choice` writes tests/benchmarks/families.txt from the results of `benchmarks.coverage`: the names,
and beside each the smallest input at which the network still uses the rules it uses at its own size. It compiles and
certifies every one of them for that, which takes minutes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.coverage import RESULTS
from benchmarks.families import families
from benchmarks.measure import measure
from benchmarks.rows import Row, read

CHOICE = Path(__file__).resolve().parent.parent / "tests" / "benchmarks" / "families.txt"
MOST = 60.0
"""Seconds of the processor a network may take. What only dearer ones use is left to the tests of the single rules."""
AT_LEAST = 11
"""How many are chosen, a tenth of the families, where fewer would do."""
SIDES = (64, 96, 120, 128, 160, 192)
"""Heights and widths to try, the smallest first; a network that suits none keeps its own."""


def uses(row: Row) -> frozenset[str]:
    """The rules and VJP rules that a network uses."""
    return frozenset(row.rules) | {f"vjp:{name}" for name in row.vjp_rules}


def cost(row: Row) -> float:
    """Seconds of the processor."""
    return sum(row.cpu_seconds.values())


def affordable(rows: Sequence[Row]) -> list[Row]:
    """Those that take at most `MOST`."""
    return [row for row in rows if cost(row) <= MOST]


def passed() -> list[Row]:
    """The rows of the families that passed."""
    rows = read(RESULTS)
    return [rows[n.spec] for n in families() if n.spec in rows and rows[n.spec].status == "ok"]


def choose(rows: Sequence[Row]) -> list[Row]:
    """A cheap cover by greedy choice, cheapest first: most new rules a second, then what others made redundant dropped.

    Further ones, the cheapest of families not met, fill it up to `AT_LEAST`.
    """
    missing = frozenset().union(*map(uses, rows))
    chosen: list[Row] = []
    while missing:
        best = max(rows, key=lambda row: (len(uses(row) & missing) / cost(row), row.spec))
        chosen.append(best)
        missing -= uses(best)
    for row in sorted(chosen, key=cost, reverse=True):
        others = [other for other in chosen if other is not row]
        if uses(row) <= frozenset().union(*map(uses, others)):
            chosen = others
    for row in sorted(rows, key=cost):
        if len(chosen) < AT_LEAST and row.family not in {other.family for other in chosen}:
            chosen.append(row)
    return sorted(chosen, key=lambda row: (cost(row), row.spec))


def smallest_side(row: Row) -> int:
    """The smallest height and width at which a network passes and uses every rule of its row."""
    for side in (side for side in SIDES if side < row.size[0]):
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Row(row.spec, row.family, row.parameters, (side, side), "ok"), Path(folder))
        if found.status == "ok" and uses(found) >= uses(row):
            return side
    return row.size[0]


def read_choice() -> dict[str, int]:
    """The networks chosen and the height and width of their inputs, as committed."""
    pairs = (line.split() for line in CHOICE.read_text().splitlines())
    return {spec: int(side) for spec, side in pairs}


if __name__ == "__main__":
    CHOICE.write_text("".join(f"{row.spec} {smallest_side(row)}\n" for row in choose(affordable(passed()))))
