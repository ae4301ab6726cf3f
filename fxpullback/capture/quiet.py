"""Capture without torch's own noise, and without its fused inference operators."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import TextIO

import torch

from fxpullback.graph.alone import alone

_TALKATIVE = (
    "torch.fx.experimental.symbolic_shapes",
    "torch._subclasses.fake_tensor",
    "torch.export",
    "torch.export._trace",
    "torch.fx.experimental.proxy_tensor",
    "torch._export.utils",
    "torch.export._draft_export",
    "torch.utils.cpp_extension",
    "torch._inductor.package.package",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's own warnings and dumps: what matters of them stands in the error that is raised.

    Other threads log and print meanwhile as ever; their warnings are lost.
    """
    with alone() as mine, warnings.catch_warnings(), _without_logs(mine), _without_partial_graph(mine):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _without_logs(mine: Callable[[], bool]) -> Iterator[None]:
    def passes(record: logging.LogRecord) -> bool:
        return not mine()

    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    for logger in loggers:
        logger.addFilter(passes)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(passes)


class _Held(io.StringIO):
    """Keeps what one thread writes; what others write goes where it would have gone."""

    def __init__(self, mine: Callable[[], bool], elsewhere: TextIO) -> None:
        super().__init__()
        self.mine, self.elsewhere = mine, elsewhere

    def write(self, text: str) -> int:
        return super().write(text) if self.mine() else self.elsewhere.write(text)

    def fileno(self) -> int:
        return self.elsewhere.fileno()

    def release(self, without: str) -> None:
        """Write what was kept, but for `without`; whoever holds on to this stream writes past it from now on."""
        self.mine = lambda: False
        text = self.getvalue()
        self.elsewhere.write(text.replace(without, "") if without.strip() else text)


@contextmanager
def _without_partial_graph(mine: Callable[[], bool]) -> Iterator[None]:
    """Without the half-made graph that torch.export prints to stderr where it fails; all else comes through."""
    held, graph = _Held(mine, sys.stderr), ""
    try:
        with redirect_stderr(held):
            yield
    except Exception as error:
        graph = f"{getattr(error, 'partial_fx_graph', '')}\n"
        raise
    finally:
        held.release(without=graph)


@contextmanager
def no_fast_path() -> Iterator[None]:
    """Keep `nn.MultiheadAttention` from its fused inference operators, which hide the attention from the rules.

    The switch is torch's and process-wide: in other threads, too, attention takes the plain path meanwhile, whose
    results are those of the fused one up to rounding.
    """
    with alone():
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(before)
