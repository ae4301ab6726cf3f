"""`torch.cdist` while a model is exported: torch's own asks whether the batch is above 25, and fixes it by that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fxpullback.graph.alone import alone
from fxpullback.graph.distances import cdist

_NAME = "cdist"


@contextmanager
def free_rows() -> Iterator[None]:
    """Take distances of any number of rows, in the thread that exports; any other gets torch's own function."""
    patched = vars(torch._VF)
    with alone() as mine:
        before, torchs = patched.get(_NAME), getattr(torch._VF, _NAME)

        def call(*args: Any) -> Any:
            return cdist(*args) if mine() else torchs(*args)

        patched[_NAME] = call
        try:
            yield
        finally:
            patched.pop(_NAME, None)
            if before is not None:
                patched[_NAME] = before
