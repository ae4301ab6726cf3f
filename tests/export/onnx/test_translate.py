"""Every translated operator: torch eager against ONNX Runtime, at a batch size the exporter never saw."""

from __future__ import annotations

import numpy as np
import pytest

from fxpullback.export.onnx.translate import TABLE, translate
from tests.export.onnx.lifting import run
from tests.export.onnx.one_node import Row, eager, one_node
from tests.export.onnx.rows import ROWS

BANNED = {"ScatterND", "ScatterElements", "Col2Im", "NonZero", "If", "Loop", "Scan"}
UNTESTABLE = {"empty.memory_format", "empty_like.default", "new_empty.default"}
"""Their contents are whatever memory held."""


@pytest.mark.filterwarnings("ignore:torch.meshgrid", "ignore:Using padding=.same. with even")
@pytest.mark.parametrize("case", ROWS, ids=str)
def test_operator_agrees_with_eager(case: Row) -> None:
    model = translate(one_node(case, batch=2))
    feed, expected = eager(case, batch=3)
    results = run(model, *feed)
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        array = wanted.detach().numpy()
        assert result.dtype == array.dtype
        assert result.shape == array.shape
        np.testing.assert_allclose(result, array, rtol=case.tolerance, atol=case.tolerance)
    assert not {node.op_type for node in model.graph} & BANNED
    assert {node.domain for node in model.graph} <= {""}


def test_every_operator_has_a_row() -> None:
    tested = {case.operator for case in ROWS}
    missing = {str(operator).removeprefix("aten.") for operator in TABLE.keys() - tested} - UNTESTABLE
    assert not missing
