"""What is process-wide while a model is compiled: done by one thread at a time, and put back by it.

torch.export and make_fx patch `nn.Module` while they trace, and torch keeps what it knows of the node at work in a
global variable. Of two threads that did so at once, each would put back what the other had, or write over it. Whoever
traces, runs fake values, or patches anything meanwhile holds `LOCK` until everything is as it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOCK = threading.RLock()


@contextmanager
def alone() -> Iterator[Callable[[], bool]]:
    """Hold the lock; gives a function that says whether it is called by the thread that holds it.

    What is patched is seen by every thread. A patch asks this function, and leaves other threads what they had.
    """
    with LOCK:
        owner = threading.get_ident()
        yield lambda: threading.get_ident() == owner
