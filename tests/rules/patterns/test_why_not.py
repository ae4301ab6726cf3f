"""Every softmax, product and quotient that stays exact has a sentence that says why it is no gate written out."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fxpullback import EXACT, REFERENCE, SEMANTIC
from fxpullback.capture import capture
from fxpullback.graph.ir import aten, calls
from fxpullback.ledger import Row
from fxpullback.rewrite import rewrite
from fxpullback.rules.patterns import Flow
from fxpullback.vjp import kind_of
from tests.helpers import draw, graph_of
from tests.networks import NETWORKS, SIZE, network
from tests.rules.patterns.written_out import CASES, PRODUCTS

WEIGHT = draw(4, 4)


def exact_rows(function: Callable[[Tensor], Any], *sizes: int) -> dict[str, Row]:
    """Rows that stay exact, by operator."""
    rows = rewrite(graph_of(function, *sizes), SEMANTIC)[1].rows
    return {row.operator: row for row in rows if row.verdict == "exact"}


AT = r"at node \w+ \(\w+\.py:\d+\)"
NO_GATE = r"neither factor is the \(scaled, shifted, re-laid\) output of sigmoid, hard-sigmoid, tanh or softmax: "
NO_STATISTIC = r"the divisor is no statistic \(a norm, a deviation, the root of a variance or of a mean of squares\): "
SENTENCES: list[tuple[str, Callable[[Tensor], Any], str, str, str]] = [
    (
        "softmax-to-output",
        lambda x: torch.softmax(x, -1),
        "aten.softmax.int",
        "attention",
        "its output meets no second factor that depends on the input in a matrix product: it is an output of the model",
    ),
    (
        "softmax-to-sum",
        lambda x: torch.softmax(x, -1).sum(1).exp(),
        "aten.softmax.int",
        "attention",
        rf".* in a matrix product: it goes to aten\.sum\.dim_IntList {AT}",
    ),
    (
        "softmax-meets-itself",
        lambda x: (lambda w: w @ w)(torch.softmax(x, -1)),
        "aten.softmax.int",
        "attention",
        rf".* in a matrix product: it goes to aten\.matmul {AT}",
    ),
    (
        "matmul-with-itself",
        lambda x: (lambda w: w @ w)(torch.softmax(x, -1)),
        "aten.matmul",
        "attention",
        rf"both factors are the same value, from aten\.softmax\.int {AT}",
    ),
    (
        "linear-attention",
        lambda x: F.elu(x) @ (x @ WEIGHT),
        "aten.matmul",
        "attention",
        rf"neither factor comes from a softmax: the first comes from aten\.elu {AT}, the second from aten\.matmul {AT}",
    ),
    (
        "fused-matrix-product",
        lambda x: torch.baddbmm(x, x, x.sin()),
        "aten.baddbmm",
        "attention",
        r"both factors depend on the input, but this pattern looks into aten\.matmul alone",
    ),
    (
        "fused-product",
        lambda x: torch.addcmul(x, x.exp(), x.sin()),
        "aten.addcmul",
        "gated_product",
        r"both factors depend on the input, but this pattern looks into aten\.mul alone",
    ),
    (
        "silu-times-input",
        lambda x: F.silu(x @ WEIGHT) * 2 * x,
        "aten.mul.Tensor",
        "gated_product",
        NO_GATE + rf"the first comes from aten\.silu {AT}, the second from the input",
    ),
    (
        "square-of-a-sine",
        lambda x: (lambda y: y * y)(x.sin()),
        "aten.mul.Tensor",
        "gated_product",
        NO_GATE + rf"both are the same value, from aten\.sin {AT}",
    ),
    (
        "root-of-a-sigmoid",
        lambda x: (lambda y: y * torch.sigmoid(y).sqrt())(x @ WEIGHT),
        "aten.mul.Tensor",
        "self_gated",
        "neither factor is a pointwise function of the other: followed back through pointwise operators, the first "
        rf"leads to aten\.matmul {AT}, the second to aten\.sqrt {AT}",
    ),
    (
        "gate-without-a-selector",
        lambda x: x * torch.exp(2 * x),
        "aten.mul.Tensor",
        "self_gated",
        r"one factor is a pointwise function of the other, but no .* among its operators: aten\.exp, aten\.mul\.Tensor",
    ),
    (
        "statistic-of-another-power",
        lambda x: x * x.pow(3).mean(1, keepdim=True).rsqrt(),
        "aten.mul.Tensor",
        "normalization_by_hand",
        r"neither factor is a statistic \(.*\): the first comes from the input, the second comes from the input",
    ),
    (
        "quotient-by-a-sum",
        lambda x: x / x.exp().sum(1, keepdim=True),
        "aten.div.Tensor",
        "normalization_by_hand",
        NO_STATISTIC + rf"it comes from aten\.sum\.dim_IntList {AT}",
    ),
    (
        "quotient-by-a-variance",
        lambda x: x / x.var(1, keepdim=True),
        "aten.div.Tensor",
        "normalization_by_hand",
        NO_STATISTIC + "it has no root",
    ),
    (
        "quotient-of-norms",
        lambda x: x.norm(dim=1) / x.norm(dim=2),
        "aten.div.Tensor",
        "normalization_by_hand",
        r"both are statistics \(.*\), and nothing is left to be normalised",
    ),
    (
        "threshold-at-one",
        lambda x: torch.where(x > 1, x, 0.0),
        "aten.where.ScalarOther",
        "relu",
        "the value is compared with 1, not with 0",
    ),
    (
        "product-with-another-comparison",
        lambda x: x.sin() * (x > 0),
        "aten.mul.Tensor",
        "relu",
        "what it passes on is not the value that is compared, which comes from the input",
    ),
    (
        "threshold-with-a-floor",
        lambda x: torch.where(x > 0, x, -1.0),
        "aten.where.ScalarOther",
        "relu",
        "what it gives below 0 is neither zero nor a constant multiple of the value",
    ),
    (
        "shrinkage-with-a-slope",
        lambda x: torch.where(x.abs() > 0.5, x, 0.1 * x),
        "aten.where.self",
        "softshrink",
        r"what it gives within 0\.5 of 0 is not zero",
    ),
    (
        "shrinkage-by-another-width",
        lambda x: torch.where(x.abs() > 0.5, x - torch.sign(x) * 0.4, 0.0),
        "aten.where.ScalarOther",
        "softshrink",
        r"what it passes on is neither the value x nor x - sign\(x\) \* 0\.5",
    ),
]


@pytest.mark.parametrize(
    ("function", "operator", "name", "sentence"), [row[1:] for row in SENTENCES], ids=[row[0] for row in SENTENCES]
)
def test_sentences(function: Callable[[Tensor], Any], operator: str, name: str, sentence: str) -> None:
    told = dict(exact_rows(function, 4, 4)[operator].why_not)
    assert name in told, told
    assert re.fullmatch(sentence, told[name]), told[name]


class Gated(nn.Module):
    """A product of two layers, in a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = F.silu(self.gate(x)) * self.up(x)
        return result


def test_sentences_name_module_paths() -> None:
    captured = capture(nn.Sequential(nn.Linear(4, 4), Gated()).double().eval(), torch.zeros(1, 4).double())
    (row,) = (row for row in rewrite(captured, SEMANTIC)[1].rows if row.operator == "aten.mul.Tensor")
    told = dict(row.why_not)["gated_product"]
    assert re.search(r"from aten\.silu at 1 \(test_why_not\.py:\d+\), the second from aten\.linear at 1\.up \(", told)


def test_a_difference_that_is_not_normalised_is_no_centring() -> None:
    """It is linear, so no row of a ledger says it; whoever asks the pattern is told."""
    captured = graph_of(lambda x: (x - x.mean(1, keepdim=True)).exp(), 4)
    flow = Flow(captured.graph)
    (difference,) = (node for node in calls(captured.graph) if node.target is aten.sub.Tensor)
    told = dict(SEMANTIC.why_not(difference, flow))
    assert told == {
        "centring_by_hand": "no product or quotient with a statistic follows on this difference of a value and its mean"
    }


FUNCTIONS = [
    *((name, model, (6, 4)) for name, (model, _) in PRODUCTS.items()),
    *((row[0], row[1], (4, 4)) for row in SENTENCES),
    *((case.name, case.model, case.sizes) for case in CASES[::4]),
]
GRAPHS: dict[str, Callable[[], fx.GraphModule]] = {
    name: partial(lambda name: capture(network(name), torch.zeros(1, *SIZE).double()), name) for name in NETWORKS
}
GRAPHS |= {name: partial(graph_of, function, *sizes) for name, function, sizes in FUNCTIONS}


@pytest.mark.parametrize("name", GRAPHS)
def test_exact_softmaxes_products_and_quotients_say_why(name: str) -> None:
    captured = GRAPHS[name]()
    flow = Flow(captured.graph)
    kinds = {
        node.name: "softmax" if node.target is aten.softmax.int else kind_of(node, flow.active)
        for node in calls(captured.graph)
    }
    for row in rewrite(captured, SEMANTIC)[1].rows:
        if row.verdict == "exact" and kinds[row.node] in ("softmax", "product"):
            assert row.why_not, row
        assert row.verdict == "exact" or not row.why_not, row
        assert all(sentence and "{" not in sentence for _, sentence in row.why_not), row
    for rules in (REFERENCE, EXACT):
        told = {name for row in rewrite(captured, rules)[1].rows for name, _ in row.why_not}
        assert told <= {pattern.rule.public for pattern in rules.patterns}
