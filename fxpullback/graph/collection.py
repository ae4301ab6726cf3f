"""Garbage collected less often while graphs are made, and what a long compilation will cost.

Nodes of a graph refer to each other, and Python's collector walks through all of them again whenever some thousand
objects were made: a third of the time that a long graph takes.
"""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import fx

from fxpullback.graph.ir import calls

_SELDOM = (100_000, 20, 20)
_LOCK = threading.Lock()
_inside = 0
_before = gc.get_threshold()

LONG = 6000  # operators, above which the cost is said
SECONDS_EACH = 0.0035  # of processor time for one operator of a captured graph: all stages; a file takes as much again


class LongCompilationWarning(UserWarning):
    """The model holds so many operators that compiling it takes long."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Inside, garbage is collected seldom; of several threads the last one to leave puts the thresholds back."""
    global _inside, _before
    with _LOCK:
        if _inside == 0:
            _before = gc.get_threshold()
            if 0 < _before[0] < _SELDOM[0]:
                gc.set_threshold(*_SELDOM)
        _inside += 1
    try:
        yield
    finally:
        with _LOCK:
            _inside -= 1
            if _inside == 0:
                gc.set_threshold(*_before)


def say_cost(gm: fx.GraphModule, stacklevel: int) -> None:
    """Warn of a graph that takes long to compile, with about how long.

    Args:
        gm: the captured graph.
        stacklevel: as `warnings.warn` takes it.
    """
    count = sum(1 for _ in calls(gm.graph))
    if count <= LONG:
        return
    warnings.warn(
        f"the model has {count} operators, each step of its recurrent layers among them. Compiling it takes about "
        f"{count * SECONDS_EACH:.0f} s of processor time, and a file with its certificate as much again. Fewer steps "
        "take less: the time grows as their number",
        LongCompilationWarning,
        stacklevel=stacklevel,
    )
