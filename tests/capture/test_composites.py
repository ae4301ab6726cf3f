"""Composites, which are other names of operators and compositions of several, are taken apart with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fxpullback.capture.canonical import decompositions
from fxpullback.contract.errors import CaptureError
from fxpullback.graph.invariants import check_captured
from fxpullback.graph.ir import aten, calls, is_size
from tests.capture.test_canonical import ROW, SQUARE
from tests.helpers import draw, graph_of

COMPOSED: dict[str, tuple[Callable[[Tensor], Any], Any]] = {
    "concat": (lambda x: torch.concat([x, x * 2], 1), aten.cat.default),
    "hstack": (lambda x: torch.hstack([x, x * 2]), aten.cat.default),
    "clip": (lambda x: torch.clip(x, -0.5, 0.5), aten.hardtanh.default),
    "clip-to-zero": (lambda x: torch.clip(x, 0), aten.relu.default),
    "absolute": (torch.absolute, aten.abs.default),
    "negative": (torch.negative, aten.neg.default),
    "arctan": (torch.arctan, aten.atan.default),
    "multiply": (lambda x: torch.multiply(x, ROW), aten.mul.Tensor),
    "subtract": (lambda x: torch.subtract(x, ROW), aten.sub.Tensor),
    "true_divide": (lambda x: torch.true_divide(x, 3.0), aten.div.Tensor),
    "greater": (lambda x: x * torch.greater(x, 0), aten.gt.Scalar),
    "linalg.norm": (lambda x: torch.linalg.norm(x, dim=1, keepdim=True), aten.linalg_vector_norm.default),
    "special.logsumexp": (lambda x: torch.special.logsumexp(x, 1, True), aten.logsumexp.default),
    "special.log1p": (lambda x: torch.special.log1p(x.abs()), aten.log1p.default),
    "tile": (lambda x: x.tile(1, 2), aten.repeat.default),
    "tensordot": (lambda x: torch.tensordot(x, SQUARE, 1), aten.matmul.default),
    "inner": (lambda x: torch.inner(x, SQUARE), aten.matmul.default),
    "diff": (lambda x: x.diff(dim=1), aten.sub.Tensor),
    "std of all": (lambda x: x / torch.std(ROW), aten.std.correction),
    "argsort": (lambda x: x.gather(1, x.argsort(1)), aten.sort.default),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_composite_is_taken_apart(name: str) -> None:
    function, target = COMPOSED[name]
    captured = graph_of(function, 4)
    check_captured(captured)
    assert target in {node.target for node in calls(captured.graph) if not is_size(node)}
    x = draw(3, 4)
    assert torch.equal(captured(x)[0], function(x).reshape(3, -1))


def test_what_cannot_be_taken_apart_is_refused_by_name() -> None:
    with pytest.raises(CaptureError, match=r"aten\.concat cannot be taken apart (?s:.)*Write the model without it"):
        decompositions()[aten.concat.default]([], "no dimension")
