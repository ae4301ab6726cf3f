"""`python -m benchmarks.importer` measures what of ONNX is imported and writes docs/onnx-support.md.

`--files` measures whole networks, each in a process of its own. It may be stopped at any point and goes on from there:
files that have a row are left out unless they are named.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.coverage import Limits
from benchmarks.importer.nodes import Outcome, node_tests, outcome
from benchmarks.importer.page import PAGE, page
from benchmarks.importer.sweep import ROWS, read, sweep

RESULTS = Path(__file__).parent / "results.json"


def measured_nodes() -> list[Outcome]:
    """Every node test in scope; the pullback of the first of each operator."""
    seen, found = set[str](), list[Outcome]()
    for test in node_tests():
        made = outcome(test, pullback=test.kind not in seen)
        if made.passed and made.pullback is not None:
            seen.add(test.kind)
        found.append(made)
    return found


def held_nodes() -> list[Outcome]:
    """The node tests as they were measured last."""
    return [Outcome(**row) for row in json.loads(RESULTS.read_text())["nodes"]] if RESULTS.exists() else []


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    made = argparse.ArgumentParser(prog="benchmarks.importer", description=__doc__)
    made.add_argument("--page", action="store_true", help="write the page from the results there are")
    made.add_argument("--nodes", action="store_true", help="measure the node tests anew")
    made.add_argument(
        "--files", nargs="*", metavar="NAME",
        help="measure files: those named, or those that have no row yet; a group (light, timm, file), or failed",
    )  # fmt: skip
    made.add_argument("--folder", type=Path, help="a folder of .onnx files, with files.json, to measure instead")
    made.add_argument("--rows", type=Path, default=ROWS, help="where the rows of files are kept")
    made.add_argument("--seconds", type=float, default=900.0, help="limit for one file")
    made.add_argument("--memory-gb", type=float, default=12.0, help="limit for one file")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    options = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the file running now is ended too
    if options.folder is not None and options.files is None:
        options.files = []
    torch.set_num_threads(1)
    everything = not (options.page or options.nodes or options.files is not None)
    if options.nodes or everything:
        RESULTS.write_text("".join(_lines([asdict(one) for one in measured_nodes()])))
    if options.files is not None or everything:
        sweep(options.files or [], options.folder, Limits(options.seconds, options.memory_gb), options.rows)
    if options.rows == ROWS:
        PAGE.write_text(page(held_nodes(), [*read().values()]))


def _lines(rows: list[dict[str, object]]) -> list[str]:
    """JSON with one row a line, so that changes can be read."""
    body = ",\n".join("  " + json.dumps(row, sort_keys=True) for row in rows)
    return ["{\n", f' "nodes": [\n{body}\n ]', "\n}\n"]


if __name__ == "__main__":
    main()
