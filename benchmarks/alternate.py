"""Times of several calls, taken in turn, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

REST = 0.02
"""Seconds between two calls, in which the threads of the last one go to sleep."""


@dataclass(frozen=True)
class Times:
    """Seconds of one call, taken again and again.

    Attributes:
        seconds: of every run, in order.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Middle of the runs, in seconds."""
        return statistics.median(self.seconds)

    def ratio(self, other: Times) -> float:
        """Median of the ratios to the other's run of the same round."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))

    def spread(self, other: Times) -> float:
        """Half the distance between the quartiles of those ratios, relative to their median."""
        ratios = [a / b for a, b in zip(self.seconds, other.seconds, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        return (high - low) / 2 / middle


def alternate(
    calls: Mapping[str, Callable[[], object]], *, budget: float, least: int = 5, most: int = 50
) -> dict[str, Times]:
    """Run every call once a round, after one round that does not count.

    Args:
        calls: what to time, by name.
        budget: seconds after which no further round begins.
        least: rounds at least, whatever they take.
        most: rounds at most.

    Returns:
        The times of every call, one for each round.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    end = time.monotonic() + budget
    rounds = 0
    while rounds < least or (rounds < most and time.monotonic() < end):
        for name, call in calls.items():
            time.sleep(REST)
            begin = time.perf_counter()
            call()
            found[name].append(time.perf_counter() - begin)
        rounds += 1
    return {name: Times(tuple(seconds)) for name, seconds in found.items()}
