"""What capture patches is patched for one thread, and put back."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback.capture import capture, recurrent
from fxpullback.capture.quiet import no_fast_path, quiet
from fxpullback.graph.alone import LOCK, alone
from fxpullback.graph.ir import aten, calls
from fxpullback.graph.opaque import LSTM
from tests.helpers import assert_near, draw

SECONDS = 120.0  # a thread that takes longer hangs
TALKS = "torch.fx.experimental.symbolic_shapes"


class Series(nn.Module):
    """An LSTM over a series; `inside` is called while it runs."""

    def __init__(self, inside: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.lstm, self.head, self.inside = nn.LSTM(5, 6, batch_first=True), nn.Linear(6, 3), inside

    def forward(self, x: Tensor) -> Tensor:
        self.inside()
        result: Tensor = self.head(self.lstm(x)[0][:, -1])
        return result


class Tokens(nn.Module):
    """`nn.MultiheadAttention`, which has a fused operator that capture keeps it from."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))
        return result


def made(model: type[nn.Module], *arguments: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return model(*arguments).double().eval().requires_grad_(False)


def state() -> tuple[Any, ...]:
    """Everything process-wide that capture touches."""
    return (
        {name for name in vars(torch._VF) if name in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
        nn.Module.__call__,
        torch.backends.mha.get_fastpath_enabled(),
        sys.stderr,
        list(warnings.filters),
        list(logging.getLogger(TALKS).filters),
    )


def at_once(*functions: Callable[[], Any]) -> list[Any]:
    """What functions return that begin at the same moment, each in a thread of its own."""
    start, results = threading.Barrier(len(functions)), [None] * len(functions)
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            start.wait(SECONDS)
            results[index] = functions[index]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]
    return results


def test_two_threads_compile_at_once() -> None:
    before = state()
    series, tokens, target = made(Series), made(Tokens), torch.tensor([0, 2])
    x, y = draw(2, 4, 5), draw(2, 7, 6)
    first, second = at_once(
        lambda: fxpullback.compile(series, (x,)), lambda: fxpullback.compile(tokens, (y,), target="index")
    )
    assert state() == before
    assert_near(first(x, target)[0], series(x))
    assert_near(second(y, target)[0], tokens(y))
    assert LSTM not in {node.target for node in calls(first.captured.graph)}
    assert aten.scaled_dot_product_attention.default in {node.target for node in calls(second.captured.graph)}


def test_another_thread_runs_an_lstm_during_capture() -> None:
    entered, left = threading.Event(), threading.Event()
    eager, x = made(Series), draw(2, 4, 5)
    expected = eager(x)

    def inside() -> None:
        entered.set()
        assert left.wait(SECONDS)

    def meanwhile() -> Tensor:
        assert entered.wait(SECONDS)
        assert "lstm" in vars(torch._VF), "nothing is patched, and the test shows nothing"
        try:
            result: Tensor = eager(x)
            return result
        finally:
            left.set()

    graph, result = at_once(lambda: capture(made(Series, inside), x), meanwhile)
    assert torch.equal(result, expected)
    assert_near(graph(x)[0], expected)


def test_another_thread_prints_and_logs_during_capture(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger(TALKS)
    with quiet():
        logger.warning("a log of the capture")
        warnings.warn("a warning of the capture", stacklevel=1)
        print("words of the model", file=sys.stderr)
        assert "words of the model" not in capfd.readouterr().err, "it is held until it is known what torch printed"

        def other() -> None:
            print("words of another thread", file=sys.stderr)
            logger.warning("a log of another thread")

        at_once(other)
        assert "words of another thread" in capfd.readouterr().err
    assert "words of the model" in capfd.readouterr().err
    assert [record.message for record in caplog.records] == ["a log of another thread"]


def test_a_stream_that_somebody_holds_on_to_writes_on(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        kept = sys.stderr
    print("later", file=kept)
    assert "later" in capfd.readouterr().err


@pytest.mark.parametrize("patch", [quiet, no_fast_path, recurrent.opaque], ids=lambda patch: patch.__name__)
def test_all_is_put_back_after_an_error_and_from_inside(patch: Callable[[], Any]) -> None:
    before = state()

    def failing() -> None:
        with patch():
            inner = state()
            with patch():
                pass
            assert state()[:3] == inner[:3], "the inner one put back what the outer one still needs"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert state() == before
    assert LOCK.acquire(blocking=False)
    LOCK.release()


def test_one_thread_at_a_time() -> None:
    seen: list[str] = []

    def held() -> None:
        with alone() as mine:
            assert mine()
            seen.append("in")
            at_once(lambda: seen.append("mine" if mine() else "not mine"))
            seen.append("out")

    at_once(held, held)
    assert seen == ["in", "not mine", "out"] * 2
