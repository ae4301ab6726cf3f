"""One session, called by many threads at once: every answer is the one the call gets alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

import fxpullback
from fxpullback.export import Result, Session, to_onnx
from fxpullback.export.runtime.binding import Bound

THREADS, CALLS, SIZE, CLASSES = 8, 12, 16, 5


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.GELU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)).eval()
    pb = fxpullback.compile(model, (torch.randn(1, 3, SIZE, SIZE),))
    return to_onnx(pb, tmp_path_factory.mktemp("threads") / "model.onnx", certify=False)


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def calls(thread: int) -> list[tuple[Any, Any]]:
    """The calls of one thread: batch sizes in an order of its own, every input and target different."""
    generator = np.random.default_rng(thread)
    batches = [1 + (thread + turn) % 4 for turn in range(CALLS)]
    return [
        (generator.normal(size=(b, 3, SIZE, SIZE)).astype(np.float32), generator.integers(0, CLASSES, b))
        for b in batches
    ]


def together(session: Callable[..., Result]) -> list[list[Result]]:
    """What eight threads get that begin at the same moment."""
    start = Barrier(THREADS)

    def work(thread: int) -> list[Result]:
        given = calls(thread)
        start.wait()
        return [session(x, target) for x, target in given]

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(THREADS)))


def alone(session: Callable[..., Result]) -> list[list[Result]]:
    """The same calls one after the other."""
    return [[session(x, target) for x, target in calls(thread)] for thread in range(THREADS)]


def same(found: list[list[Result]], wanted: list[list[Result]]) -> None:
    for some, others in zip(found, wanted, strict=True):
        for one, other in zip(some, others, strict=True):
            np.testing.assert_allclose(one.logits, other.logits, rtol=0, atol=1e-6)
            np.testing.assert_allclose(one.pullback, other.pullback, rtol=0, atol=1e-6)


def test_threads_share_a_session(path: Path) -> None:
    session = Session(path, providers=["cpu"])
    same(together(session), alone(session))


def test_threads_share_bound_buffers(path: Path) -> None:
    same(together(Session(path, providers=["cpu"], io_binding=True)), alone(Session(path, providers=["cpu"])))


@pytest.mark.parametrize("recorded", [True, frozenset({1, 3})])
def test_threads_share_recorded_graphs(path: Path, recorded: bool | frozenset[int]) -> None:
    """The way of a session that records CUDA graphs, run on the CPU, where the number of a graph means nothing."""
    session = Session(path, providers=["cpu"])
    wanted = alone(session)
    runtime = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = {value.name: tuple(value.shape) for value in runtime.get_outputs()}
    session._run = Bound(runtime, session.inputs, outputs, device="cpu", recorded=recorded)
    same(together(session), wanted)
