"""Garbage is collected seldom while a graph is made, as before afterwards; a long compilation is announced."""

from __future__ import annotations

import gc
import threading
import warnings

import pytest
from torch import nn

from fxpullback.graph.collection import LongCompilationWarning, say_cost, seldom_collected
from tests.helpers import graph_of


def test_thresholds_are_put_back_whichever_thread_leaves_last() -> None:
    before = gc.get_threshold()
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with seldom_collected():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with seldom_collected():
        during = gc.get_threshold()
        thread.start()
        assert entered.wait(10)
    assert gc.get_threshold() == during
    leave.set()
    thread.join()
    assert gc.get_threshold() == before
    assert during[0] > before[0]


def test_thresholds_are_put_back_after_an_error() -> None:
    before = gc.get_threshold()
    with pytest.raises(ZeroDivisionError), seldom_collected():
        _ = 1 / 0
    assert gc.get_threshold() == before


def test_the_cost_of_a_long_recurrence_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.GRU(2, 3, batch_first=True).double()
    graph = graph_of(lambda x: layer(x)[0][:, -1], 12, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say_cost(graph, 1)
    monkeypatch.setattr("fxpullback.graph.collection.LONG", 100)
    monkeypatch.setattr("fxpullback.graph.collection.SECONDS_EACH", 1.0)
    with pytest.warns(LongCompilationWarning, match=r"has \d{3} operators.*about \d{3} s of processor time"):
        say_cost(graph, 1)
