"""`python -m benchmarks.importer` measures what of ONNX is imported and writes docs/onnx-support.md."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.importer.files import File, files
from benchmarks.importer.nodes import Outcome, node_tests, outcome
from benchmarks.importer.page import PAGE, page

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


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="benchmarks.importer", description=__doc__)
    parser.add_argument("--page", action="store_true", help="write the page from the results there are")
    parser.add_argument("--nodes", action="store_true", help="measure the node tests anew")
    parser.add_argument("--files", action="store_true", help="measure the files anew")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    made: dict[str, list[dict[str, object]]] = {}
    if options.nodes or not (options.page or options.files):
        made["nodes"] = [asdict(one) for one in measured_nodes()]
    if options.files or not (options.page or options.nodes):
        made["files"] = [asdict(one) for one in files()]
    held = {**(json.loads(RESULTS.read_text()) if RESULTS.exists() else {"nodes": [], "files": []}), **made}
    RESULTS.write_text("".join([*_lines(held)]))
    PAGE.write_text(page([Outcome(**one) for one in held["nodes"]], [File(**one) for one in held["files"]]))


def _lines(held: dict[str, list[dict[str, object]]]) -> list[str]:
    """JSON with one row a line, so that changes can be read."""
    parts = []
    for name, rows in held.items():
        body = ",\n".join("  " + json.dumps(row, sort_keys=True) for row in rows)
        parts.append(f' "{name}": [\n{body}\n ]')
    return ["{\n", ",\n".join(parts), "\n}\n"]


if __name__ == "__main__":
    main()
