"""One row and more for every gate rule, and the checks that every row has to pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fxpullback.graph.ir import inject
from fxpullback.rules.rule import Rule
from tests.helpers import TOLERANCE, assert_near, draw, pulled_back

Primal = Callable[[Tensor], Tensor]
Adjoint = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Row:
    """A use of one gate rule.

    Attributes:
        rule: the rule.
        primal: the gate as the model has it.
        soft: the rule on the same input, at a temperature.
        adjoint: the oracle, (input, cotangent of the gate, temperature) -> cotangent of the input.
        x: the input.
        limit: the adjoint that T -> 0 gives at inputs off the kinks, or None where no temperature is.
        off_kinks: an input on which the limit is reached.
        note: added to the name where a rule has several rows.
        tolerance: a looser one has its reason beside the row.
    """

    rule: Rule
    primal: Primal
    soft: Callable[[Tensor, float], Tensor]
    adjoint: Adjoint
    x: Tensor
    limit: Callable[[Tensor, Tensor], Tensor] | None = None
    off_kinks: Tensor | None = None
    note: str = ""
    tolerance: float = TOLERANCE

    @property
    def name(self) -> str:
        return self.rule.name + (f"-{self.note}" if self.note else "")

    def injected(self, temperature: float) -> Primal:
        """The gate with the soft adjoint, as an ordinary torch expression."""
        return lambda x: inject(self.primal(x), self.soft(x, temperature))


def at(rule: Rule, temperature: float) -> dict[str, Any]:
    """The keyword a rule takes its temperature by, if it has one."""
    return {} if rule.temperature is None else {"temperature": temperature}


def temperatures(rule: Rule) -> tuple[float, ...]:
    """The default temperature and others on both sides; 8 is what calibration finds on wide inputs."""
    own = rule.temperature
    return (1.0,) if own is None else (own, own / 2, own * 2, 8.0)


def check_adjoint(row: Row, temperature: float) -> None:
    ct = draw(*row.primal(row.x).shape, seed=3)
    expected = row.adjoint(row.x, ct, temperature)
    assert_near(pulled_back(row.injected(temperature), row.x, ct), expected, row.tolerance)


def check_value(row: Row, temperature: float) -> None:
    for x in (row.x, row.x.float()):
        value, primal = row.injected(temperature)(x), row.primal(x)
        assert torch.isfinite(primal).all()
        assert torch.equal(value, primal)


def check_linear(row: Row, temperature: float) -> None:
    """In the cotangent, and with a sum that is not one of the two."""
    a, b = (draw(*row.primal(row.x).shape, seed=seed) for seed in (3, 4))
    gate = row.injected(temperature)
    both = pulled_back(gate, row.x, 2 * a - 3 * b)
    assert_near(both, 2 * pulled_back(gate, row.x, a) - 3 * pulled_back(gate, row.x, b))
    assert not torch.equal(both, pulled_back(gate, row.x, a))


def check_dot(row: Row, temperature: float) -> None:
    """<ct, J v> = <J^T ct, v>, J v by forward mode through the injected expression."""
    gate = row.injected(temperature)
    v = draw(*row.x.shape, seed=8)
    with sdpa_kernel(SDPBackend.MATH):  # the only fused attention that torch has forward mode for
        pushed = torch.func.jvp(gate, (row.x,), (v,))[1]
    ct = draw(*pushed.shape, seed=3)
    forward, reverse = (ct * pushed).sum(), (pulled_back(gate, row.x, ct) * v).sum()
    size = float((ct * pushed).abs().sum())
    assert size > 0
    assert abs(float(forward - reverse)) <= TOLERANCE * size


def check_temperature_matters(row: Row) -> None:
    own = row.rule.temperature
    assert own is not None
    ct = draw(*row.primal(row.x).shape, seed=3)
    first, second = (pulled_back(row.injected(t), row.x, ct) for t in (own, own * 1.5))
    assert float((first - second).abs().max()) > 1e-3 * float(first.abs().max())


def check_limit(row: Row) -> None:
    """T -> 0 gives the hard selector."""
    assert row.limit is not None
    x = row.x if row.off_kinks is None else row.off_kinks
    ct = draw(*row.primal(x).shape, seed=3)
    # A smooth derivative f' is met up to T^2 f''' / 2.
    assert_near(pulled_back(row.injected(1e-6), x, ct), row.limit(x, ct), 1e-10)
