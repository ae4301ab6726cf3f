"""Each file in a process of its own, with limits of time and of memory; its row is on the disk before the next begins.

`python -m benchmarks.importer.sweep SPEC FOLDER OUT` measures one, and is what the processes run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.coverage import Limits, died, watch
from benchmarks.importer.files import File, Job, measured
from benchmarks.importer.jobs import jobs

ROWS = Path(__file__).parent / "files.jsonl"


def sweep(names: Sequence[str], folder: Path | None, limits: Limits, rows: Path = ROWS) -> None:
    """Measure files; rows of the same name are replaced.

    Args:
        names: which: `resnet50`, `light/resnet50`, a group, `failed`; where none is named, those that have no row yet.
        folder: a folder of files, measured in place of those that the project makes.
        limits: what each may take.
        rows: the file the rows go to.

    Raises:
        SystemExit: there is no file of a name.
    """
    known = jobs(folder)
    for spec in chosen(names, known, read(rows)):
        row = in_a_process(spec, known[spec], folder, limits)
        write(rows, row)
        print(told(row), flush=True)


def chosen(names: Sequence[str], known: Mapping[str, Job], held: Mapping[str, File]) -> list[str]:
    """The specs that are named.

    Raises:
        SystemExit: there is none of a name.
    """
    if not names:
        return [spec for spec in known if spec not in held]
    of = {
        name: [
            spec
            for spec, job in known.items()
            if name in (spec, job.name, job.group) or (name == "failed" and spec in held and not held[spec].passed)
        ]
        for name in names
    }
    unknown = [name for name, specs in of.items() if not specs and name != "failed"]
    if unknown:
        raise SystemExit(f"no such file: {', '.join(unknown)}. There are {', '.join(known)}.")
    wanted = {spec for specs in of.values() for spec in specs}
    return [spec for spec in known if spec in wanted]


def in_a_process(spec: str, job: Job, folder: Path | None, limits: Limits) -> File:
    """The row of one file, measured in a process that ends when it goes beyond a limit."""
    with tempfile.TemporaryDirectory() as name:
        out, errors = Path(name) / "row", Path(name) / "stderr"
        given = [spec, str(folder.resolve()) if folder else "", str(out)]
        with errors.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.importer.sweep", *given], stdout=file, stderr=file
            )
            reason = watch(process, limits)
        if out.exists():
            return File.from_json(out.read_text())
        last = (errors.read_text(errors="replace").strip().splitlines() or [""])[-1]
        return replace(job.empty, reason=(reason or f"{died(process.returncode)} {last}")[:300].strip())


def read(rows: Path = ROWS) -> dict[str, File]:
    """The rows by `group/name`, in the order of the file; the last of a name counts, and a line cut off does not."""
    text = rows.read_text() if rows.exists() else ""
    found = [File.from_json(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return {row.spec: row for row in found}


def write(rows: Path, row: File) -> None:
    """Add a row, or put it in the place of the one of its name."""
    held = {**read(rows), row.spec: row}
    fresh = rows.with_suffix(".tmp")
    with fresh.open("w") as file:
        file.write("".join(f"{one.to_json()}\n" for _, one in sorted(held.items())))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(rows)


def told(row: File) -> str:
    """One line about a row."""
    ended = "ok" if row.passed else f"failed: {row.reason}"
    return f"{row.spec} ({row.exporter or row.source}): {ended} {row.logits} {row.module} [{row.seconds} s]"


def main(argv: Sequence[str]) -> None:
    """Measure one file."""
    spec, folder, out = argv
    torch.set_num_threads(1)
    row = measured(jobs(Path(folder) if folder else None)[spec])
    Path(out).write_text(row.to_json())


if __name__ == "__main__":
    main(sys.argv[1:])
