"""VJP rules derived from autograd: right, in forward operators, in canonical spelling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.nn import functional as F

from fxpullback.contract.errors import DifferentiateError
from fxpullback.differentiate import differentiate
from fxpullback.graph import invariants
from fxpullback.graph.ir import aten, calls
from fxpullback.lower import lower
from fxpullback.vjp import TABLE
from fxpullback.vjp.derive import call_in_schema_order
from tests.helpers import assert_near, draw, graph_of, pulled_back
from tests.vjp.rows import ROWS, Row

BATCH = 3  # the capture sees a batch of two
PLACES, WEIGHTS = torch.tensor([[0, 1, 3, 2]]), draw(4).abs()

Function = Callable[[Tensor], Any]
WITHOUT_A_RULE: dict[str, tuple[Any, Function]] = {
    "atan": (aten.atan.default, torch.atan),
    "a keyword": (aten.prod.dim_int, lambda x: x.prod(1, keepdim=True)),
    "two arguments": (aten.atan2.default, lambda x: torch.atan2(x[:, :2], x[:, 2:] + 5)),
    "two arguments of one shape": (
        aten.hypot.default, lambda x: torch.hypot(x.clamp(-1, 1), (x * 2).clamp(-1, 1)),
    ),
    "one argument twice": (aten.hypot.default, lambda x: torch.hypot(x, x)),
    "places": (
        aten.scatter.src, lambda x: torch.zeros_like(x).scatter(1, PLACES.expand(x.shape[0], 4), x * 2),
    ),
    "no weight": (
        aten.binary_cross_entropy.default,
        lambda x: F.binary_cross_entropy(x.sigmoid(), x.cos().sigmoid(), reduction="none"),
    ),
    "several outputs": (aten.frexp.Tensor, lambda x: torch.frexp(x)[0]),
    "both outputs": (
        aten.std_mean.correction,
        lambda x: torch.cat([p * x[:, :1] for p in torch.std_mean(x, 1, keepdim=True)], 1),
    ),
    # Autograd's formula works in place,
    "addcdiv": (aten.addcdiv.default, lambda x: torch.addcdiv(x, x, x + 9)),
    "logit": (aten.logit.default, lambda x: torch.logit(x.sigmoid())),
    # multiplies matrices under another name than the canonical one,
    "matrix_exp": (aten.linalg_matrix_exp.default, lambda x: torch.linalg.matrix_exp(x.reshape(-1, 2, 2))),
    # or is one of its own operators, for which torch has forward ones.
    "huber": (aten.huber_loss.default, lambda x: F.huber_loss(x, x.cos(), reduction="none")),
}  # fmt: skip


def check(captured: fx.GraphModule, function: Function, x: Tensor, vjps: Any = TABLE) -> None:
    ct = draw(*function(x).shape, seed=1)
    differentiated = differentiate(captured, vjps=vjps)
    invariants.check_differentiated(differentiated, 0)
    lowered, _ = lower(differentiated)
    invariants.check_lowered(lowered)
    for graph in (differentiated, lowered):
        assert_near(graph(x, ct.reshape(len(x), -1))[1], pulled_back(function, x, ct))


@pytest.mark.parametrize("name", WITHOUT_A_RULE)
def test_operator_without_a_rule_gets_one_from_autograd(name: str) -> None:
    target, function = WITHOUT_A_RULE[name]
    assert target not in TABLE
    captured = graph_of(function, 4)
    assert target in {node.target for node in calls(captured.graph)}
    check(captured, function, draw(BATCH, 4))


LISTS = (aten.cat.default, aten.stack.default, aten.index.Tensor)
SEVERAL = (aten.split.Tensor, aten.unbind.int, aten.max.dim, aten.sort.default)
PLAIN = (
    aten.where.self,
    aten.prelu.default,
    aten.softmax.int,
    aten.elu.default,
    aten.linear.default,
    aten.roll.default,
)
REPLACED = [next(row for row in ROWS if row.target is target) for target in LISTS + SEVERAL + PLAIN]


@pytest.mark.parametrize("row", REPLACED, ids=lambda row: row.name)
def test_a_derived_rule_agrees_with_the_written_one(row: Row) -> None:
    fewer = {target: rule for target, rule in TABLE.items() if target is not row.target}
    check(graph_of(row.function, *row.sizes), row.function, row.values(draw(BATCH, *row.sizes)), fewer)


def test_operator_whose_derivative_is_no_forward_operator_is_refused() -> None:
    captured = graph_of(lambda x: x[:, 0] * F.pdist(x[0]), 3, 3)
    with pytest.raises(DifferentiateError, match=r"no VJP rule for aten\._pdist_forward(?s:.)*docs/adding-a-rule"):
        differentiate(captured)


def test_operator_that_autograd_has_no_formula_for_is_refused() -> None:
    captured = graph_of(lambda x: torch.special.zeta(x, x), 4)
    with pytest.raises(DifferentiateError, match=r"aten\.special_zeta .* none can be derived(?s:.)*docs/adding-a-rule"):
        differentiate(captured)


def test_arguments_behind_the_star_go_by_name() -> None:
    x = draw(3, 4)
    found = call_in_schema_order(aten.prod.dim_int, [x, 1, True, torch.float32])
    assert torch.equal(found, x.prod(1, keepdim=True, dtype=torch.float32))
