"""Every translated operator: torch eager against ONNX Runtime, at a batch size the exporter never saw."""

from __future__ import annotations

import inspect
import re

import numpy as np
import onnx
import pytest
from torch._ops import OpOverload

from fxpullback.export.onnx.translate import TABLE, translate
from fxpullback.graph.spellings import SPELLINGS
from tests.export.onnx.lifting import captured_together, run
from tests.export.onnx.one_node import Row, eager, one_node
from tests.export.onnx.rows import ROWS, UNINITIALISED

BANNED = {"ScatterND", "ScatterElements", "Col2Im", "NonZero", "If", "Loop", "Scan"}


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
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


@pytest.mark.parametrize("case", UNINITIALISED, ids=str)
def test_uninitialised_memory_has_shape_and_type(case: Row) -> None:
    feed, (wanted,) = eager(case, batch=3)
    (result,) = run(translate(one_node(case, batch=2)), *feed)
    assert result.dtype == wanted.numpy().dtype
    assert result.shape == tuple(wanted.shape)


def test_every_operator_has_a_row() -> None:
    assert TABLE.keys() == {case.operator for case in (*ROWS, *UNINITIALISED)}


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_no_translator_for_a_spelling_that_capture_always_replaces() -> None:
    """A model calls every translated operator; all of them are there once capture is through with it."""
    left = {node.target for node in captured_together(_one_each(ROWS + UNINITIALISED)).graph.nodes}
    replaced = TABLE.keys() - left
    assert not replaced, f"capture never leaves {sorted(map(str, replaced))}: delete their translators and rows"


def _one_each(rows: list[Row]) -> list[Row]:
    """One row for each operator, and all of those whose spelling depends on the arguments."""
    chosen: dict[OpOverload, list[Row]] = {}
    for case in rows:
        if case.captured and (case.operator in SPELLINGS or case.operator not in chosen):
            chosen.setdefault(case.operator, []).append(case)
    return [case for cases in chosen.values() for case in cases]


@pytest.mark.parametrize("operator", TABLE, ids=str)
def test_translator_says_which_onnx_operator_it_becomes(operator: OpOverload) -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    function = TABLE[operator]
    factory, _, inner = function.__qualname__.partition(".<locals>.")
    said = inspect.getdoc(inspect.getmodule(function).__dict__[factory] if inner else function)
    assert said
    assert set(re.findall(r"[A-Z]\w+", said)) & known, said
