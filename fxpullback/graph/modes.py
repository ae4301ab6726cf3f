"""torch in its plain mode, whatever mode the caller is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_DEVICES = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def plain_mode() -> Iterator[None]:
    """Without the inference mode and without the autocast of whoever calls: what is computed is what is written."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
