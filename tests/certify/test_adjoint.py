"""`compile` holds the pullback to autograd before anybody runs it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback.errors import DifferentiateError
from fxpullback.graph.ir import aten
from fxpullback.vjp import TABLE
from fxpullback.vjp.rule import vjp


class Last(nn.Module):
    """The last place of a row is what the head sees; the others stay behind."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.body(x))
        return self.head(x[:, -1] + x.mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("rules", [fxpullback.EXACT, fxpullback.SEMANTIC])
def test_a_rule_that_loses_a_part_is_refused(free: bool, rules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    @vjp(aten.select.int, kind="linear")
    def zeros(ct: Any, result: Any, x: Any, *rest: Any) -> tuple[Any, ...]:
        return (torch.zeros_like(x),)

    model, x, size = Last().eval(), torch.randn(2, 5, 4), (1,) if free else False
    fxpullback.compile(model, x, rules=rules, free_size=size)
    monkeypatch.setattr("fxpullback.extensions.TABLE", {**TABLE, aten.select.int: zeros})
    with pytest.raises(DifferentiateError, match=r"off by .* select"):
        fxpullback.compile(model, x, rules=rules, free_size=size)


def test_a_rule_that_is_a_little_wrong_is_refused_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    right = TABLE[aten.tanh.default].function

    @vjp(aten.tanh.default, kind="nonlinear")
    def wrong(ct: Any, result: Any, x: Any) -> tuple[Any, ...]:
        return (right(ct, result, x)[0] * 1.01,)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    monkeypatch.setattr("fxpullback.extensions.TABLE", {**TABLE, aten.tanh.default: wrong})
    with pytest.raises(DifferentiateError, match="off by") as error:
        fxpullback.compile(model, torch.randn(2, 4), rules=fxpullback.EXACT)
    assert "aten.tanh" in str(error.value) or "aten.linear" in str(error.value)
    assert "report" in str(error.value)
