"""`python -m benchmarks.kinds` measures every model of `benchmarks.kinds.cases` that has no row yet.

Each runs in a process of its own, with a limit of time and of memory. It may be stopped at any point and goes on from
there; `--again` redoes what failed, or the models that it names.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.coverage import Limits, in_a_process
from benchmarks.kinds.cases import cases
from benchmarks.kinds.page import RESULTS
from benchmarks.rows import Row, append, read, tidy


def sweep(results: Path, limits: Limits, again: Sequence[str], kinds: Sequence[str]) -> None:
    """Run the models that have no row yet.

    Args:
        results: the file their rows go to.
        limits: what each may take.
        again: models to run even so; `failed` stands for all whose row is not ok.
        kinds: which kinds: text, audio, task.
    """
    rows = read(results)
    for one in cases():
        row = rows.get(one.spec)
        redo = row is None or one.spec in again or ("failed" in again and row.status != "ok")
        if one.spec.split(":")[0] in kinds and redo:
            empty = Row(one.spec, one.family, 0, (0, 0), "not run")
            row = in_a_process("benchmarks.kinds.measure", [one.spec], empty, limits)
            append(results, row)
            print(f"{row.spec}: {row.status} {row.stage} {row.reason} {dict(row.errors)}", flush=True)
    tidy(results)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="benchmarks.kinds", description=__doc__)
    parser.add_argument("--kinds", nargs="+", default=["text", "audio", "task"], choices=["text", "audio", "task"])
    parser.add_argument("--again", nargs="*", metavar="SPEC", help="run these again; all that failed if none")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seconds", type=float, default=300.0, help="limit for one model")
    parser.add_argument("--memory-gb", type=float, default=Limits.memory_gb)
    options = parser.parse_args(argv)
    again = [] if options.again is None else options.again or ["failed"]
    sweep(options.results, Limits(options.seconds, options.memory_gb), again, options.kinds)


if __name__ == "__main__":
    main()
