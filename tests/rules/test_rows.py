"""Every gate rule against its oracle; what holds of all of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fxpullback import REFERENCE, SEMANTIC
from fxpullback.rules.rule import Rule
from tests.helpers import assert_near, draw, pulled_back
from tests.rules import activations, attention, normalization, pooling, quantisation, rows
from tests.rules.patterns.written_out import CASES
from tests.rules.rows import Row, temperatures

ROWS = [*activations.ROWS, *pooling.ROWS, *attention.ROWS, *normalization.ROWS, *quantisation.ROWS]
WARM = [row for row in ROWS if row.rule.temperature is not None]
AT = [(row, t) for row in ROWS for t in temperatures(row.rule)]
AT_IDS = [f"{row.name}-T{t:g}" for row, t in AT]

# Forward mode loads decompositions that torch itself compiles with the old compiler.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")


def every_rule() -> set[Rule]:
    return {*SEMANTIC.all_rules, *REFERENCE.all_rules}


def test_every_rule_has_a_row() -> None:
    assert {row.rule.name for row in ROWS} | {case.rule for case in CASES} == {rule.name for rule in every_rule()}


def test_names_of_rows_differ() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("row", "temperature"), AT, ids=AT_IDS)
def test_autograd_through_the_injection_gives_the_oracle(row: Row, temperature: float) -> None:
    rows.check_adjoint(row, temperature)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_value_is_that_of_the_primal(row: Row) -> None:
    rows.check_value(row, row.rule.temperature or 1.0)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_linear_in_the_cotangent(row: Row) -> None:
    rows.check_linear(row, row.rule.temperature or 1.0)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_transpose_of_forward_mode(row: Row) -> None:
    rows.check_dot(row, row.rule.temperature or 1.0)


@pytest.mark.parametrize("row", WARM, ids=lambda row: row.name)
def test_temperature_matters(row: Row) -> None:
    rows.check_temperature_matters(row)


@pytest.mark.parametrize("row", [row for row in WARM if row.limit], ids=lambda row: row.name)
def test_limit_is_the_hard_selector(row: Row) -> None:
    rows.check_limit(row)


def test_every_softened_rule_has_a_limit() -> None:
    assert {row.rule.name for row in WARM if row.rule.verdict == "softened"} == {
        row.rule.name for row in WARM if row.limit and row.rule.verdict == "softened"
    }


@pytest.mark.parametrize("name", ["gelu", "silu", "hardswish", "mish"])
def test_own_gate_at_temperature_one(name: str) -> None:
    row = next(row for row in activations.ROWS if row.name == name)
    x = activations.OFF
    pulled = pulled_back(row.injected(1.0), x, torch.ones_like(x))
    assert_near(pulled * x, row.primal(x))


def test_negative_zero_becomes_zero_and_the_adjoint_is_halved() -> None:
    row = next(row for row in activations.ROWS if row.name == "relu")
    zeros = torch.tensor([0.0, -0.0], dtype=torch.float64)
    value = row.injected(0.6)(zeros)
    assert not torch.signbit(value).any()
    assert_near(pulled_back(row.injected(0.6), zeros, torch.ones_like(zeros)), torch.full_like(zeros, 0.5))


def _border(reference: bool) -> Tensor:
    """What the corner window of a map that is -2 everywhere passes back: 3x3 stride 2 pad 1, T = 0.3."""
    row = pooling.pool((8, 8), "", reference, kernel_size=3, stride=2, padding=1)
    x = torch.full((1, 1, 8, 8), -2.0, dtype=torch.float64)
    ct = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    ct[..., 0, 0] = 1
    return pulled_back(row.injected(0.3), x, ct).sum()


def test_reference_loses_a_border_window_to_its_padding() -> None:
    assert 0.998 < 1 - float(_border(reference=True)) < 0.9995  # 99.9 %, as method.md has it
    assert_near(_border(reference=False), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("low", [-1e4, -1e30])
def test_window_far_below_the_others(low: float) -> None:
    """The exponentials are taken relative to each window's largest value: none underflows altogether."""
    row = pooling.pool((4, 4), "", kernel_size=2)
    x = draw(1, 1, 4, 4).float()
    x[..., :2, :2] = low
    ct = torch.ones(1, 1, 2, 2)
    pulled = pulled_back(row.injected(0.3), x, ct)
    assert_near(pulled[..., :2, :2], torch.full((1, 1, 2, 2), 0.25))
    assert torch.equal(row.injected(0.3)(x), row.primal(x))
