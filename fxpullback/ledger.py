"""The ledger: what happened to every operator of the captured model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fxpullback.contract.calibrated import calibrated_text
from fxpullback.rules.rule import Verdict


@dataclass(frozen=True)
class Row:
    """One operator instance of the captured model.

    Attributes:
        index: position in the captured graph.
        node: name of the captured node.
        module: path of the module whose forward made it, empty for the root.
        source: `file.py:line` of the model's code, empty when unknown.
        operator: e.g. `aten.relu`.
        verdict: softened, frozen, linear, exact, constant, or blocking: its value is read, its derivative
            is zero.
        gate: whether the operator is nonlinear in the input, one of those the sum counts.
        rule: name of the gate rule, or None.
        temperature: its temperature, or None.
        noise: the noise that it takes its expectation under, `normal` or `logistic`; None for a rule that takes none.
        pullback_nodes: nodes of one pullback that came of it.
        reason: why, for exact, frozen and constant verdicts.
        injected: whether a soft expression was injected at this operator.
        why_not: for an exact verdict, why it is none of the gates that are written as several operators: public name
            and sentence of every pattern that has something to say.
    """

    index: int
    node: str
    module: str
    source: str
    operator: str
    verdict: Verdict
    gate: bool
    rule: str | None = None
    temperature: float | None = None
    pullback_nodes: int = 0
    reason: str | None = None
    injected: bool = False
    why_not: tuple[tuple[str, str], ...] = ()
    noise: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `why_not` is left out where it is empty, `noise` where there is none."""
        data = asdict(self)
        if not self.why_not:
            del data["why_not"]
        if self.noise is None:
            del data["noise"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Row:
        """Read back what `to_dict` wrote, here or in a version that wrote no `injected`, `why_not` or `noise`."""
        injected = data.get("injected", data["rule"] is not None)
        why_not = tuple((str(name), str(sentence)) for name, sentence in data.get("why_not", ()))
        return cls(**{**data, "injected": injected, "why_not": why_not})


@dataclass(frozen=True)
class Ledger:
    """All rows, in the order of the captured graph; `str()` prints them as a table of 100 columns.

    Attributes:
        rows: one for every operator.
        calibrated_on: what the temperatures were calibrated on, as `RuleSet.calibrated_on`; empty for fixed ones.
        notes: what is to be known of the model as a whole, a sentence each.
    """

    rows: tuple[Row, ...]
    calibrated_on: Mapping[str, Any] = field(default_factory=dict, hash=False)
    notes: tuple[str, ...] = ()

    @property
    def gates(self) -> int:
        """Number of nonlinear operators on a path from the input."""
        return sum(row.gate for row in self.rows)

    def counts(self) -> dict[str, int]:
        """Number of rows for each verdict."""
        return dict(Counter(row.verdict for row in self.rows))

    def sum(self) -> str:
        """One line: `49 of 49 gates softened (12 of them held constant), 1 kept exact, 1 blocking`."""
        gates = [row for row in self.rows if row.gate]
        frozen = sum(row.verdict == "frozen" for row in gates)
        done = sum(row.verdict == "softened" for row in gates) + frozen
        exact = [row for row in gates if row.verdict == "exact"]
        held = f" ({frozen} of them held constant)" if frozen else ""
        stops = sum(row.verdict == "blocking" for row in gates)
        line = f"{done} of {len(gates)} gates softened{held}"
        return line + (f", {len(exact)} kept exact" if exact else "") + (f", {stops} blocking" if stops else "")

    def with_counts(self, counts: Mapping[str, int]) -> Ledger:
        """The same ledger with the number of pullback nodes filled in, by captured node name."""
        rows = tuple(replace(row, pullback_nodes=counts.get(row.node, 0)) for row in self.rows)
        return replace(self, rows=rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the rows and what they sum to."""
        gates = Counter(row.verdict for row in self.rows if row.gate)
        return {
            "rows": [row.to_dict() for row in self.rows],
            "gates": self.gates,
            "softened": gates["softened"],
            "frozen": gates["frozen"],
            "exact": gates["exact"],
            **({"blocking": gates["blocking"]} if gates["blocking"] else {}),
            **({"calibrated_on": dict(self.calibrated_on)} if self.calibrated_on else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
        }

    def to_json(self) -> str:
        """The ledger as JSON text, what an exported file carries."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Ledger:
        """Read back what `to_dict` wrote."""
        rows = tuple(Row.from_dict(row) for row in data["rows"])
        return cls(rows, data.get("calibrated_on", {}), tuple(data.get("notes", ())))

    def __str__(self) -> str:
        found = f"temperatures {calibrated_text(self.calibrated_on)}" if self.calibrated_on else None
        lines = [_HEAD, "-" * 100, *(_line(row) for row in self.rows), "-" * 100, self.sum()]
        return "\n".join([*lines, *([found] if found else []), *(f"note: {note}" for note in self.notes)])


def _cell(text: str, width: int) -> str:
    """Left-aligned text of exactly `width` columns; a long one loses its beginning."""
    return text.ljust(width) if len(text) <= width else "…" + text[-(width - 1) :]


def _line(row: Row) -> str:
    temperature = "" if row.temperature is None else f"{row.temperature:.3g}"
    noise = "" if row.noise in (None, "normal") else f", {row.noise}"
    cells = [
        f"{row.index:5d}",
        _cell(row.module or row.node, 26),
        _cell(row.operator, 24),
        _cell(row.verdict, 8),
        _cell(row.rule + noise, 18) if row.rule else _short(row.reason or "", 18),
        temperature.rjust(8),
        str(row.pullback_nodes).rjust(5),
    ]
    return " ".join(cells)


def _short(text: str, width: int) -> str:
    """Left-aligned text of exactly `width` columns; a long one loses its end."""
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


_HEAD = " ".join(
    ["    #", "module".ljust(26), "operator".ljust(24), "verdict ", "rule or reason    ", "       T", "nodes"]
)
