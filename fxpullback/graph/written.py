"""What assignment in place leaves behind of a slice or a place, in one spelling."""

from __future__ import annotations

from typing import Any

from fxpullback.graph.ir import aten
from fxpullback.graph.value import Recorder, Value


def slice_scatter(recorder: Recorder, x: Value, source: Value, *rest: Any) -> Value:
    """Writing over a whole axis, as in-place assignment to a slice leaves it behind, is what was written."""
    return source


def select_scatter(recorder: Recorder, x: Value, source: Value, dim: int, index: int) -> Any:
    """Writing over one place of an axis is writing over a slice of it."""
    axis = dim % x.ndim
    place = index + x.shape[axis] if index < 0 else index
    made = (x, source.unsqueeze(axis), axis, place, place + 1)
    return recorder.call(aten.slice_scatter.default, made, {})
