"""One row and more for every operator of the VJP table."""

from __future__ import annotations

from fxpullback.graph.ir import aten
from tests.vjp.rows.elementwise import ARITHMETIC, CONSTANT, FUNCTIONS, GATES
from tests.vjp.rows.indexing import INDEXING
from tests.vjp.rows.layers import ATTENTION, CONVOLUTION, MATRICES, NORMALIZATION
from tests.vjp.rows.pooling import POOLING, REDUCTION
from tests.vjp.rows.resize import RESIZE
from tests.vjp.rows.row import Row
from tests.vjp.rows.shape import SHAPE

GROUPS: dict[str, list[Row]] = {
    "arithmetic": ARITHMETIC,
    "functions": FUNCTIONS,
    "gates": GATES,
    "constant": CONSTANT,
    "attention": ATTENTION,
    "convolution": CONVOLUTION,
    "matrices": MATRICES,
    "normalization": NORMALIZATION,
    "pooling": POOLING,
    "reduction": REDUCTION,
    "indexing": INDEXING,
    "resize": RESIZE,
    "shape": SHAPE,
}
ROWS = [row for rows in GROUPS.values() for row in rows]

# Sums over the whole batch: no cotangent of one sample, and the rule says so (test_sum_over_the_batch_is_refused).
REFUSED = {aten.sum.default, aten.mean.default}

__all__ = ["GROUPS", "REFUSED", "ROWS", "Row"]
