"""What a session adds to ONNX Runtime: checks of a call, names and the result, at batch 1.

`python -m benchmarks.overhead [FILE ...]` measures files that `fxpullback compile` wrote; without any, a trivial graph
and one of little work that takes 3x224x224. The bare call and the session's run in turn on the same arrays, on one
thread and the CPU; shown are the medians of a few thousand rounds, in microseconds.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

import fxpullback
from fxpullback.export import Session, to_onnx

ROUNDS = 3000
WARM = 50
BUDGET = 20.0
"""Seconds after which no further round begins."""


@dataclass(frozen=True)
class Overhead:
    """The outcome for one file.

    Attributes:
        name: what it holds.
        shape: shape of the input.
        bare: median of `InferenceSession.run`, microseconds.
        session: median of `Session.__call__`, microseconds.
        added: median of the differences of neighbours, microseconds.
        rounds: how many pairs.
    """

    name: str
    shape: tuple[int, ...]
    bare: float
    session: float
    added: float
    rounds: int


def measure(path: Path, name: str) -> Overhead:
    """Time both calls of a file in turn, at batch 1."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    runtime = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session = Session(path, providers=["cpu"])
    session._run = lambda feed: runtime.run(names, feed)  # the very same runtime on both sides
    names = [value.name for value in runtime.get_outputs()]
    generator = np.random.default_rng(0)
    shape = tuple(size if isinstance(size, int) else 1 for size in session.input_shape)
    x = generator.uniform(-1, 1, shape).astype(np.float32)
    target = None if session.target == "top1" else _target(session)
    feed = {"input": x} if target is None else {"input": x, "target": target}
    bare, ours = _pairs(lambda: runtime.run(names, feed), lambda: session(x, target))
    added = [b - a for a, b in zip(bare, ours, strict=True)]
    return Overhead(name, shape, statistics.median(bare), statistics.median(ours), statistics.median(added), len(bare))


def _target(session: Session) -> np.ndarray[Any, Any]:
    """A target for one sample."""
    if session.target == "cotangent":
        return np.ones((1, session.class_count), np.float32)
    return np.array([[0, session.class_count - 1] if session.target == "contrast" else session.class_count - 1])


def _pairs(first: Callable[[], object], second: Callable[[], object]) -> tuple[list[float], list[float]]:
    """Microseconds of two calls made in turn."""
    found: tuple[list[float], list[float]] = ([], [])
    end = time.monotonic() + BUDGET
    for call in (first, second) * WARM:
        call()
    while len(found[0]) < ROUNDS and time.monotonic() < end:
        for call, times in zip((first, second), found, strict=True):
            begin = time.perf_counter_ns()
            call()
            times.append((time.perf_counter_ns() - begin) / 1e3)
    return found


def examples(folder: Path) -> Iterable[tuple[Path, str]]:
    """Two files that compute next to nothing, and what they are called."""
    for name, side in (("trivial graph", 8), ("little work, 3x224x224", 224)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.AvgPool2d(side), nn.Flatten(), nn.Linear(3, 5)).eval()
        pb = fxpullback.compile(model, (torch.rand(1, 3, side, side) * 2 - 1,), rules=fxpullback.SEMANTIC)
        yield to_onnx(pb, folder / f"{side}.onnx"), name


def table(rows: Iterable[Overhead]) -> str:
    """The outcomes as Markdown."""
    lines = ["| file | input | bare run, us | session, us | added, us |", "|---|---|---|---|---|"]
    for row in rows:
        shape = "x".join(map(str, row.shape))
        lines.append(f"| {row.name} | {shape} | {row.bare:.1f} | {row.session:.1f} | {row.added:.1f} |")
    return "\n".join(lines)


def section() -> str:
    """The two examples, measured now: a section of Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(path, name) for path, name in examples(Path(folder))]
    rounds = min(row.rounds for row in rows)
    return (
        "## What a session adds to a call\n\n"
        "`Session.__call__` beside a bare `InferenceSession.run` with the same arrays, in turn, at batch 1, one "
        f"thread, on the CPU: medians of {rounds} rounds; `added` is the median of the differences. It grows with the "
        "input by one pass over it, which is what finding NaN takes.\n\n" + table(rows)
    )


def main() -> None:
    """Measure the files named on the command line, or the examples."""
    files = [Path(name) for name in sys.argv[1:]]
    print(table(measure(path, path.name) for path in files) if files else section())


if __name__ == "__main__":
    main()
