"""Figures as SVG that come out the same every time, in colours that a colour-blind reader tells apart."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fxpullback.export.evaluate.intervals import Mean

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5d5d66", "#000000")
"""Okabe and Ito, Color universal design, 2008; without its yellow, which is lost on white."""
MARKERS = "osD^vPX*"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "fxpullback",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e8",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


@contextmanager
def figure(rows: int, columns: int, *, width: float = 3.2, height: float = 2.5) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, an array [rows, columns]; sizes in inches for each of them."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        drawn, axes = pyplot.subplots(
            rows, columns, figsize=(width * columns, height * rows), squeeze=False, layout="constrained"
        )
        try:
            yield drawn, axes
        finally:
            pyplot.close(drawn)


def svg(drawn: Any) -> str:
    """A figure as text, without a date."""
    held = io.StringIO()
    drawn.savefig(held, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in held.getvalue().splitlines()) + "\n"


def line(axis: Any, number: int, label: str, x: Sequence[float], y: Sequence[Mean]) -> None:
    """One line through means, their intervals as a band."""
    colour, mark = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    axis.plot(x, [at.mean for at in y], color=colour, marker=mark, markersize=4, linewidth=1.4, label=label)
    axis.fill_between(x, [at.low for at in y], [at.high for at in y], color=colour, alpha=0.15, linewidth=0)


def legend(drawn: Any, axes: Any, **options: Any) -> None:
    """One legend for all axes, each label once."""
    found: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    shown = drawn.legend(list(found.values()), list(found), **options)
    for handle in shown.legend_handles:
        handle.set_alpha(1)
