"""Rows of the coverage sweep, and the JSON-lines file they are kept in.

A row is written and flushed as a network ends; the last row of a network counts. What was cut off while being written
is ignored, and removed before the next row.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "failed", "not run"]


@dataclass(frozen=True)
class Row:
    """What became of one network.

    Attributes:
        spec: `timm:NAME` or `torchvision:NAME`.
        family: module that builds it.
        parameters: how many numbers its weights are.
        size: height and width of its input.
        status: ok, failed, or not run (too large, or stopped by a limit).
        stage: where it failed or was stopped: build, the stages of `compile`, ledger, export, inspect, certify.
        reason: class and first line of the error, or why it was not run.
        operator: the operator the error names, e.g. `aten.erfinv`.
        operators: operators captured; the ledger has a row for each of them.
        verdicts: ledger rows by verdict.
        gates: operators nonlinear in the input.
        softened: gates softened by a rule.
        frozen: gates held constant.
        exact: gates that keep their exact derivative.
        reasons: exact rows by operator and reason.
        rules: ledger rows by gate rule.
        vjp_rules: operators transposed by VJP rule; `derived:OPERATOR` where autograd's formula was traced.
        nodes: operators of the compiled graph, sizes left out.
        model_nodes: operators of the captured model, sizes left out.
        file_nodes: operators of the ONNX file.
        shape_nodes: operators `Shape` and `Size` of the ONNX file.
        banned: banned operators of the ONNX file.
        megabytes: size of the file and its data, in 10^6 bytes.
        errors: largest relative errors: of the graph's pullback and logits in float64; ort1 and ort3 of the pullback
            in ONNX Runtime at batch 1 and 3.
        certified: whether every check of the certificate passed.
        sizes: the sizes that the graph takes, where one is free.
        fixed: why none is free, where one was asked to be.
        seconds: wall seconds of build, compile, export and certify.
        cpu_seconds: likewise, of the processor.
        peak_gb: most memory the process held, in 10^9 bytes.
        versions: of what it ran on.
        date: day of the run.
    """

    spec: str
    family: str
    parameters: int
    size: tuple[int, int]
    status: Status
    stage: str = ""
    reason: str = ""
    operator: str = ""
    operators: int = 0
    verdicts: Mapping[str, int] = field(default_factory=dict)
    gates: int = 0
    softened: int = 0
    frozen: int = 0
    exact: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    rules: Mapping[str, int] = field(default_factory=dict)
    vjp_rules: Mapping[str, int] = field(default_factory=dict)
    nodes: int = 0
    model_nodes: int = 0
    file_nodes: int = 0
    shape_nodes: int = 0
    banned: tuple[str, ...] = ()
    megabytes: float = 0.0
    errors: Mapping[str, float | None] = field(default_factory=dict)
    certified: bool = False
    sizes: str = ""
    fixed: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    peak_gb: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    date: str = ""

    @property
    def kind(self) -> str:
        """The library: timm or torchvision."""
        return self.spec.split(":")[0]

    @property
    def name(self) -> str:
        """The network's name in its library."""
        return self.spec.split(":")[1]

    def to_json(self) -> str:
        """One line; what is empty or zero is left out."""
        return json.dumps({k: v for k, v in asdict(self).items() if v or k == "status"}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Row:
        """Read back what `to_json` wrote."""
        data: dict[str, Any] = json.loads(text)
        known = {f.name for f in fields(cls)}
        pairs: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known}
        return cls(**{"parameters": 0, "size": (0, 0), **pairs})


def read(path: Path) -> dict[str, Row]:
    """The last row of every network, in the order of their first."""
    rows: dict[str, Row] = {}
    for line in _whole(path).splitlines():
        row = Row.from_json(line)
        rows[row.spec] = row
    return rows


def append(path: Path, row: Row) -> None:
    """Add one row, on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = len(_whole(path).encode())
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(whole)
        file.seek(whole)
        file.write(row.to_json().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def tidy(path: Path) -> None:
    """Keep one row for each network, sorted by name."""
    rows = read(path)
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(rows[spec].to_json() + "\n" for spec in sorted(rows)))
    fresh.replace(path)


def _whole(path: Path) -> str:
    """The file's text up to its last line break."""
    text = path.read_text() if path.exists() else ""
    return text[: text.rfind("\n") + 1]
