"""Compile, export and certify one network in this process; `benchmarks.coverage` runs it as a process of its own.

`python -m benchmarks.measure SPEC FAMILY PARAMETERS HEIGHT WIDTH THREADS FOLDER` writes the stage it is at to
`FOLDER/stage` and, in the end, its row to `FOLDER/row`.
"""

from __future__ import annotations

import datetime
import logging
import platform
import re
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import fx

import fxpullback
from benchmarks.models import build
from benchmarks.rows import Row
from fxpullback.contract.certificate import Certificate
from fxpullback.differentiate import differentiate
from fxpullback.export import to_onnx
from fxpullback.export.certify.file import BANNED, certify
from fxpullback.graph.ir import COTANGENT_OF, GETITEM, TRANSPOSES, calls, is_size, operator_name
from fxpullback.pipeline import Pullback
from fxpullback.vjp import TABLE

ERRORS = {
    "graph": "pullback: graph against autograd, float64",
    "logits": "logits: lowered graph against the model",
    "ort1": "ONNX Runtime: pullback, batch 1",
    "ort3": "ONNX Runtime: pullback, batch 3",
}
UNEVEN = "the ledger leaves operators out, or gives no reason for an exact or constant one"


class Clock:
    """The stage a run is at, in a file for whoever watches, and how long each one took."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "stage"
        self.stage = ""
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.phase, self.since = "", (0.0, 0.0)

    def at(self, stage: str, phase: str = "") -> None:
        """A stage begins, and with it a phase where one is named."""
        self.stage = stage
        self.file.write_text(stage)
        if phase:
            self.stop()
            self.phase, self.since = phase, (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        """The phase that is running ends."""
        if self.phase:
            self.wall[self.phase] = round(time.perf_counter() - self.since[0], 1)
            self.cpu[self.phase] = round(time.process_time() - self.since[1], 1)
            self.phase = ""


def measure(row: Row, folder: Path) -> Row:
    """Fill in the row of a network; an error ends it and is part of it."""
    return ended(row, folder, lambda clock: run(row, folder, clock))


def ended(row: Row, folder: Path, work: Callable[[Clock], Row]) -> Row:
    """The row that `work` fills in, or one with the error that ended it; with times, memory, versions and day."""
    clock = Clock(folder)
    try:
        row = work(clock)
    except Exception as error:
        clock.stop()
        text = plain(str(error))
        named = re.search(r"\b(?:aten|prims|torchvision)\.\w+(?:\.\w+)?", text)
        reason = f"{type(error).__name__}: {text}"[:400].strip()
        row = replace(row, status="failed", stage=clock.stage, reason=reason, operator=named.group() if named else "")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if platform.system() == "Darwin" else 1e9 / 1024)
    today = datetime.date.today().isoformat()
    return replace(
        row, seconds=clock.wall, cpu_seconds=clock.cpu, peak_gb=round(peak, 2), versions=versions(), date=today
    )


def plain(text: str) -> str:
    """The first line that says something, without the folders in it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"(?:/[\w.+-]+)+/", "", lines[0]) if lines else ""


def versions() -> dict[str, str]:
    """Versions of the compiler and of what its results hang on."""
    found = {name: version(name) for name in ("fxpullback", "torch", "torchvision", "timm", "onnx")}
    for name in ("onnxruntime", "onnxruntime-gpu", "transformers"):
        with suppress(ModuleNotFoundError):
            found[name.removesuffix("-gpu")] = version(name)
    return found


def run(row: Row, folder: Path, clock: Clock) -> Row:
    """Fill in the row of a network; an error is raised."""
    clock.at("build", "build")
    model, example = build(row.spec, row.size[0] if row.size[0] == row.size[1] else None)
    clock.at("capture", "compile")
    pb = fxpullback.compile(model, (example,), rules=fxpullback.SEMANTIC, progress=clock.at)
    clock.stop()
    row = replace(row, **about_graph(pb))
    clock.at("ledger")
    if not accounted(pb):
        return replace(row, status="failed", stage="ledger", reason=UNEVEN)
    clock.at("export", "export")
    path = to_onnx(pb, folder / "model.onnx", certify=False)
    clock.stop()
    row = replace(row, **about_file(path))
    clock.at("certify", "certify")
    certificate = certify(pb, path)
    clock.stop()
    return judged(row, certificate)


def judged(row: Row, certificate: Certificate) -> Row:
    """The row with what the certificate says."""
    measured = {check.name: float(f"{check.measured:.2e}") for check in certificate.checks}
    errors = {key: measured.get(name) for key, name in ERRORS.items()}
    row = replace(row, errors=errors, certified=certificate.passed)
    failed = [c for c in certificate.checks if not c.passed]
    if not failed:
        return row
    reasons = [f"{c.name}: {c.measured:.1e}, bound {c.bound:.0e}" for c in failed]
    detail = list(dict.fromkeys(plain(c.detail) for c in failed if c.detail))
    return replace(row, status="failed", stage="certify", reason="; ".join([*reasons, *detail])[:1200])


def accounted(pb: Pullback) -> bool:
    """Whether the ledger has a row for every captured operator, and a reason for all that is exact or constant."""
    rows = pb.ledger.rows
    return (
        [r.node for r in rows] == [n.name for n in calls(pb.captured.graph)]
        and all(r.reason for r in rows if r.verdict in ("exact", "constant"))
        and all(r.reason or r.rule for r in rows if r.verdict in ("frozen", "softened"))
    )


def about_graph(pb: Pullback) -> Mapping[str, Any]:
    """What the ledger and the graphs of a compiled network say, as fields of its row."""
    rows, gates = pb.ledger.rows, Counter(r.verdict for r in pb.ledger.rows if r.gate)
    kept = Counter(f"{r.operator}: {r.reason}" for r in rows if r.verdict == "exact")
    return {
        "operators": len(rows),
        "verdicts": dict(sorted(pb.ledger.counts().items())),
        "gates": pb.ledger.gates,
        **{verdict: gates[verdict] for verdict in ("softened", "frozen", "exact")},
        "reasons": dict(sorted(kept.items())),
        "rules": dict(sorted(Counter(r.rule for r in rows if r.rule).items())),
        "vjp_rules": dict(sorted(vjp_rules(pb.folded).items())),
        "nodes": operators(pb.graph),
        "model_nodes": operators(pb.captured),
    }


def vjp_rules(folded: fx.GraphModule) -> Counter[str]:
    """How many operators each VJP rule transposed."""
    graph = differentiate(folded).graph
    met = {str(n.meta[TRANSPOSES]) for n in calls(graph) if TRANSPOSES in n.meta}
    met |= {name for n in graph.nodes for name in n.meta.get(COTANGENT_OF, ())}
    transposed = [n.target for n in calls(folded.graph) if n.name in met and n.target is not GETITEM]
    return Counter(TABLE[t].name if t in TABLE else f"derived:{operator_name(t)}" for t in transposed)


def operators(gm: fx.GraphModule) -> int:
    """Operators of a graph, those that compute sizes left out."""
    return sum(not is_size(node) for node in calls(gm.graph))


def about_file(path: Path) -> Mapping[str, Any]:
    """What an ONNX file is made of, as fields of its row."""
    kinds = Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)
    data = path.with_name(path.name + ".data")
    size = path.stat().st_size + (data.stat().st_size if data.exists() else 0)
    return {
        "file_nodes": sum(kinds.values()),
        "shape_nodes": kinds["Shape"] + kinds["Size"],
        "banned": tuple(sorted(BANNED & kinds.keys())),
        "megabytes": round(size / 1e6, 1),
    }


def main(spec: str, family: str, parameters: str, height: str, width: str, threads: str, folder: str) -> None:
    """Measure one network and leave its row in the folder."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(int(threads))
    row = Row(spec, family, int(parameters), (int(height), int(width)), "ok")
    (Path(folder) / "row").write_text(measure(row, Path(folder)).to_json())


if __name__ == "__main__":
    main(*sys.argv[1:])
