"""One row or more for every operator of the translator's table, in the spelling that capture gives it."""

from __future__ import annotations

from tests.export.onnx.one_node import Row
from tests.export.onnx.rows_elementwise import ACTIVATION, BINARY, COMPARISON, IDENTITY, UNARY
from tests.export.onnx.rows_layers import CONVOLUTION, LINEAR, NORMALIZATION, POOLING, REDUCTION, RESIZE
from tests.export.onnx.rows_places import CREATION, INDEXING, JOINING, SHAPE, SLICING, UNINITIALISED

__all__ = ["ROWS", "UNINITIALISED"]

ROWS: list[Row] = [
    *UNARY,
    *IDENTITY,
    *BINARY,
    *COMPARISON,
    *ACTIVATION,
    *LINEAR,
    *CONVOLUTION,
    *POOLING,
    *SHAPE,
    *SLICING,
    *JOINING,
    *INDEXING,
    *CREATION,
    *REDUCTION,
    *NORMALIZATION,
    *RESIZE,
]
