"""`python -m benchmarks.importer.inserted [NETWORK ...]`: what a pullback beside a file's nodes costs; docs/insert.md.

Each network is written by an exporter of torch, its pullback put beside it, and compiled as a file of its own besides.
The two are run in turn on one core, and their times divided.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

import fxpullback
from benchmarks.alternate import alternate
from benchmarks.importer.timm_networks import exported
from fxpullback.export import Session, to_onnx
from fxpullback.export.insert import insert

ROWS = Path(__file__).with_name("inserted.jsonl")
PAGE = Path(__file__).parents[2] / "docs" / "insert.md"
MARKERS = "<!-- inserted -->", "<!-- /inserted -->"
FILES: tuple[tuple[str, int, dict[str, Any], str], ...] = (
    ("resnet10t", 176, {}, "script"),
    ("resnet50", 224, {}, "dynamo"),
    ("mobilenetv3_large_100", 224, {}, "script"),
    ("efficientnet_b0", 224, {}, "dynamo"),
    ("convnext_atto", 224, {}, "script"),
    ("convnext_atto", 224, {}, "dynamo"),
    ("vit_tiny_patch16_224", 224, {}, "script"),
    ("vit_tiny_patch16_224", 224, {}, "dynamo"),
    ("mixer_s32_224", 224, {}, "script"),
    ("swin_tiny_patch4_window7_224", 224, {}, "dynamo"),
)
SECONDS = 20.0
BATCH = 2


@dataclass(frozen=True)
class Row:
    """One file.

    Attributes:
        name: of the network.
        how: what wrote the file.
        size: of the file with its pullback, over that of the file.
        cost: the time of a call of it over that of a file of its own.
        apart: how far the two pullbacks are apart, relative to the largest entry.
        kept: whether the outputs of the file stayed to the last bit, in all ways of optimising.
    """

    name: str
    how: str
    size: float
    cost: float
    apart: float
    kept: bool


def measured(name: str, side: int, options: Mapping[str, Any], how: str) -> Row:
    """Write a network, put its pullback beside it, and compare with a file of its own."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path, beside, own = (Path(folder) / f"{part}.onnx" for part in ("network", "beside", "own"))
        exported(name, side, dict(options), how, path)
        insert(path, beside)
        to_onnx(fxpullback.compile(path), own, certify=False)
        session = Session(beside)
        checks = (session.certificate or {})["checks"]
        kept = all(check["passed"] for check in checks if "original file" in check["name"])
        names = session.metadata.beside.inputs if session.metadata.beside is not None else {}
        shape = (BATCH, *(int(size) for size in session.input_shape[1:]))
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        target = np.arange(BATCH)
        runs = (
            (_session(beside), {names["input"]: x, names["target"]: target}),
            (_session(own), {"input": x, "target": target}),
        )
        found, wanted = (ran.run(["pullback"], feed)[0] for ran, feed in runs)
        one, other = (partial(ran.run, None, feed) for ran, feed in runs)
        times = alternate({"beside": one, "own": other}, budget=SECONDS)
        apart = float(np.abs(found - wanted).max() / np.abs(wanted).max())
        return Row(
            name, how, beside.stat().st_size / path.stat().st_size, times["beside"].ratio(times["own"]), apart, kept
        )


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def table(rows: list[Row]) -> str:
    """The rows as a table of markdown."""
    lines = ["| network | written by | size | cost | apart | outputs |", "|---|---|--:|--:|--:|---|"]
    for row in rows:
        kept = "to the last bit" if row.kept else "changed"
        lines.append(f"| {row.name} | {row.how} | {row.size:.3f} | {row.cost:.2f} | {row.apart:.0e} | {kept} |")
    return "\n".join(lines)


def main(asked: Sequence[str]) -> None:
    """Measure the networks that are asked for, by default all, keep their rows, and put all into the page."""
    held = [Row(**json.loads(line)) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    rows = {(row.name, row.how): row for row in held}
    for name, side, options, how in FILES:
        if not asked or name in asked:
            rows[name, how] = measured(name, side, options, how)
            print(rows[name, how], flush=True)
            ROWS.write_text("".join(f"{json.dumps(asdict(row))}\n" for row in rows.values()))
    start, end = MARKERS
    inside = f"{start}\n{table([rows[f[0], f[3]] for f in FILES if (f[0], f[3]) in rows])}\n{end}"
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(f"{start}.*{end}", lambda _: inside, page, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
