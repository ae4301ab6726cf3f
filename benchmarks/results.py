"""benchmarks/RESULTS.md out of the results of `benchmarks.speed` and the sections that other benchmarks write.

`python -m benchmarks.results` writes what benchmarks/speed.jsonl holds; the sections of the others are kept, and
measured anew by `--overhead`, `python -m benchmarks.precision` and `python -m benchmarks.calibration`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

from benchmarks import overhead

FOLDER = Path(__file__).resolve().parent
SPEED, PAGE = FOLDER / "speed.jsonl", FOLDER / "RESULTS.md"

HEAD = """# Results

Speed: written by `python -m benchmarks.results` from `benchmarks/speed.jsonl`, which `python -m benchmarks.speed`
writes; not to be edited.

## Speed on a CPU

Random weights, batch norms calibrated on noise, `SEMANTIC`, ascent of 5 steps, float32, ONNX Runtime's CPU provider.
Soft, double and ascent are ratios to the forward: the same network exported by `torch.onnx.export` with its optimiser
and run by ONNX Runtime with all of its own, in the same process, the two in turn; the median of the ratios of each
round. Spread is half the distance between the quartiles of soft's ratios, relative to it. Faster: by how much eager
PyTorch's autograd through the injected form takes longer than soft, in turn with it, with as many threads. Picture:
the time of one in such a batch as a ratio to one alone, soft; batch 32 was measured for that alone. File and memory
are those of soft beside those of the forward; memory is the most that loading a file and running it at batch 8 adds to
an idle process. Compile: seconds of the processor, export included, certificate not. What is empty was not measured."""

TABLE = [
    "| network | batch | forward, ms | soft | spread | double | ascent | faster | picture | file | memory | compile |",
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
]

GPU = """## Speed on a GPU

Not measured. The CUDA and TensorRT providers, CUDA graphs and AOTInductor packages for CUDA are written and tested with
stand-ins as far as a CPU goes; none of them has run on a GPU."""

OVERHEAD = re.compile(r"<!-- overhead -->\n(.*?)<!-- /overhead -->", re.DOTALL)
PRECISION = re.compile(r"<!-- precision -->\n(.*?)<!-- /precision -->", re.DOTALL)
CALIBRATION = re.compile(r"<!-- calibration -->\n(.*?)<!-- /calibration -->", re.DOTALL)
WORTH = re.compile(r"<!-- rewrites -->\n(.*?)<!-- /rewrites -->", re.DOTALL)
LIMITS = re.compile(r"<!-- limits -->\n(.*?)<!-- /limits -->", re.DOTALL)


def speed() -> list[dict[str, Any]]:
    """The last row of every network, in the order they were first measured."""
    rows = [json.loads(line) for line in SPEED.read_text().splitlines()]
    return list({row["name"]: row for row in rows}.values())


def lines(row: dict[str, Any]) -> list[str]:
    """The lines of one network, one for each batch size."""
    found = []
    for batch, of in row["batches"].items():
        ratio = [f"{of['ratio'][kind]:.2f}" if kind in of["ratio"] else "" for kind in ("soft", "double", "ascent")]
        cells = [row["name"], batch, f"{of['forward_ms']:.1f}", ratio[0], f"{of['spread']['soft']:.0%}", *ratio[1:]]
        cells += [f"{of['faster']:.1f}x", f"{row['picture_ms'][batch] / row['picture_ms']['1']:.2f}"]
        cells += [f"{row['megabytes']['soft'] / row['megabytes']['forward']:.2f}"]
        cells += [f"{row['peak_mb']['soft'] / row['peak_mb']['forward']:.1f}", f"{row['soft_compile_s']:.0f}"]
        found.append(f"| {' | '.join(cells)} |")
    for batch in sorted(row["picture_ms"].keys() - row["batches"].keys(), key=int):
        share = row["picture_ms"][batch] / row["picture_ms"]["1"]
        found.append(f"| {row['name']} | {batch} | | | | | | | {share:.2f} | | | |")
    return found


def machine() -> str:
    """What it ran on, in a sentence."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model = line.split(":")[1].strip()
            break
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}"


def kept(pattern: re.Pattern[str], name: str, text: str) -> str:
    """A section between its markers, as it stands in the page."""
    found = pattern.search(text)
    return f"<!-- {name} -->\n{found.group(1) if found else ''}<!-- /{name} -->"


def page(rows: list[dict[str, Any]], before: str) -> str:
    """The text of RESULTS.md; what other benchmarks wrote into `before` is kept."""
    versions = ", ".join(f"{name} {number}" for name, number in rows[-1]["versions"].items())
    dates = sorted({row["date"] for row in rows})
    parts = [HEAD, f"{machine()}; {versions}; {' to '.join(dates)}."]
    parts += ["\n".join([*TABLE, *(line for row in rows for line in lines(row))])]
    parts += [kept(LIMITS, "limits", before), kept(WORTH, "rewrites", before), GPU]
    parts += [kept(OVERHEAD, "overhead", before), kept(PRECISION, "precision", before)]
    parts += [kept(CALIBRATION, "calibration", before)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="benchmarks.results", description=__doc__)
    parser.add_argument("--overhead", action="store_true", help="measure what a session adds to a call, now")
    given = parser.parse_args()
    before = PAGE.read_text() if PAGE.exists() else ""
    if given.overhead:
        section = overhead.section().rstrip("\n")
        before = OVERHEAD.sub("", before) + f"<!-- overhead -->\n{section}\n<!-- /overhead -->"
    PAGE.write_text(page(speed(), before))


if __name__ == "__main__":
    main()
