"""Capture without torch's own noise, and without its fused inference operators."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import torch

_TALKATIVE = (
    "torch.fx.experimental.symbolic_shapes",
    "torch._subclasses.fake_tensor",
    "torch.export._trace",
    "torch.fx.experimental.proxy_tensor",
    "torch._export.utils",
    "torch.export._draft_export",
    "torch.utils.cpp_extension",
    "torch._inductor.package.package",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's own warnings and dumps: what matters of them stands in the error that is raised."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.disabled for logger in loggers]
    with warnings.catch_warnings(), _without_partial_graph():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.disabled = True
        try:
            yield
        finally:
            for logger, disabled in zip(loggers, before, strict=True):
                logger.disabled = disabled


@contextmanager
def _without_partial_graph() -> Iterator[None]:
    """Without the half-made graph that torch.export prints to stderr where it fails; all else comes through."""
    held, graph = io.StringIO(), ""
    try:
        with redirect_stderr(held):
            yield
    except Exception as error:
        graph = f"{getattr(error, 'partial_fx_graph', '')}\n"
        raise
    finally:
        text = held.getvalue()
        sys.stderr.write(text.replace(graph, "") if len(graph) > 1 else text)


@contextmanager
def no_fast_path() -> Iterator[None]:
    """Keep `nn.MultiheadAttention` from its fused inference operators, which hide the attention from the rules."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
