"""The sections of docs/support.md about text, sound and torchvision's other tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.kinds.measure import EAGER, ROUNDS
from benchmarks.rows import Row, read

RESULTS = Path(__file__).parent / "results.jsonl"
HEADS = {
    "text": "Transformers of text",
    "audio": "Transformers of sound",
    "task": "torchvision's other tasks",
}
SAID = {
    "text": "Explained at their embeddings, with the lengths under `size`, or the one where no other is taken; "
    "logits at many positions with the further input `positions`. Small models with random weights.",
    "audio": "Waveforms, or spectrograms as the feature extractor makes them. Small models with random weights.",
    "task": "Segmentation, explained over a mask of positions, at 64 x 64 pixels; video, at 4 frames.",
}
INTRODUCTION = """Written from `benchmarks/kinds/results.jsonl`, which `python -m benchmarks.kinds` fills. A model
passes when all that is said above holds, and when besides its `EXACT` pullback is torch's own gradient of the model
itself to 1e-9, at a batch of three and, where the length is free, at a length not compiled for: `eager`. Size is the
last axis of the input. For that the
model runs in float64; where its own code casts to float32 and rounds, with those casts made to float64."""
TABLE = [
    "| model | size | gates | soft | constant | exact | eager | graph | ONNX Runtime | operators | ratio | s |",
    "|---|" + "--:|" * 11,
]


def sections() -> list[str]:
    """The sections, in the order of the page; none where nothing was measured."""
    return of(read(RESULTS))


def of(rows: Mapping[str, Row]) -> list[str]:
    """The sections about given rows."""
    found = {kind: [row for row in rows.values() if row.kind == kind] for kind in HEADS}
    if not any(found.values()):
        return []
    parts = ["## Text, sound and other tasks", INTRODUCTION]
    for kind, some in found.items():
        if some:
            passed = sum(row.status == "ok" for row in some)
            parts += [f"### {HEADS[kind]}", f"{SAID[kind]} {passed} of {len(some)} pass."]
            parts += [
                "\n".join([*TABLE, *(_line(row) for row in some)]),
                *_failures(some),
                *_fixed(some),
                *_rounded(some),
            ]
    return parts


def _line(row: Row) -> str:
    if row.status != "ok":
        return f"| {row.name} | {row.status} in {row.stage} |" + " |" * 10
    runtime = max(row.errors[key] or 0.0 for key in ("ort1", "ort3"))
    cells = [
        row.name, row.sizes or row.size[-1], row.gates, row.softened, row.frozen, row.exact, f"{row.errors[EAGER]:.0e}",
        f"{row.errors['graph']:.0e}", f"{runtime:.0e}", row.nodes, f"{row.nodes / row.model_nodes:.1f}",
        f"{row.cpu_seconds['compile'] + row.cpu_seconds['export']:.0f}",
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def _fixed(rows: Sequence[Row]) -> list[str]:
    """Why a size that was asked to be free is not."""
    lines = [f"- {row.name}: `{row.fixed.replace('`', '')}`" for row in rows if row.fixed and row.status == "ok"]
    return ["Compiled at one length, and why:", "\n".join(lines)] if lines else []


def _rounded(rows: Sequence[Row]) -> list[str]:
    """Models whose own code casts to float32, and how far off they are with those casts."""
    off = [f"{row.name} {row.errors[ROUNDS]:.0e}" for row in rows if ROUNDS in row.errors]
    return (
        [f"Off by the rounding of their own casts to float32, where those are left in: {', '.join(off)}."]
        if off
        else []
    )


def _failures(rows: Sequence[Row]) -> list[str]:
    lines = [f"- {row.name}: `{row.reason.replace('`', '')}`" for row in rows if row.status != "ok"]
    return ["\n".join(lines)] if lines else []
