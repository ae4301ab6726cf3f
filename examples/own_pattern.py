"""Give a gate that a model writes out by hand a rule of your own: a pattern holds the rule and what finds the gate."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

import fxpullback
from fxpullback.graph.ir import aten, stop_gradient
from fxpullback.rules import Flow, Match, Pattern, WhyNot, gate


def algebraic(x: Tensor) -> Tensor:
    """A sigmoid without an exponential: (1 + x / sqrt(1 + x^2)) / 2."""
    return (1 + x * torch.rsqrt(1 + x * x)) / 2


@gate(temperature=1.0)
def algebraic_silu(x: Tensor, gate_of: Callable[[Tensor], Tensor], *, temperature: float) -> Tensor:
    """SiLU with the algebraic sigmoid.

    Primal:  x g(x)
    Adjoint: ct * g(x / T)
    Limit:   T -> 0 gives 1[x > 0]
    """
    return x * stop_gradient(gate_of(x / temperature))


def find(node: fx.Node, flow: Flow) -> Match | WhyNot | None:
    """A product of x with 1 + t, or a multiple of it, where t is a function of x with a reciprocal root in it."""
    factors = flow.two_factors(node)
    if factors is None:
        return None
    for x, factor in (factors, factors[::-1]):
        walk = flow.walk(factor, flow.known.pointwise | {aten.rsqrt.default}, {x}.__contains__, 12)
        has_root = any(n.target is aten.rsqrt.default for n in walk.passed)
        if walk.stop is None and has_root and flow.back(factor, flow.known.scaling).target is aten.add.Tensor:
            return Match({"x": x}, {"gate_of": (x, factor)})
    return WhyNot("neither factor is 1 + t with a root of the other one in t: they come from {} and {}", factors)


PATTERN = Pattern(algebraic_silu, find, at=(aten.mul.Tensor,))


class Net(nn.Module):
    """A gate that no rule set has."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x)
        logits: Tensor = self.last(z * algebraic(z))
        return logits


def main() -> None:
    torch.manual_seed(0)
    model, x = Net().double().eval(), torch.randn(4, 6).double()
    for row in fxpullback.compile(model, x).ledger.rows:
        for name, sentence in row.why_not:
            print(f"{row.node} is no {name}: {sentence}")
    mine = fxpullback.SEMANTIC.with_patterns(PATTERN).with_temperature(algebraic_silu=0.7)
    pb = fxpullback.compile(model, x, rules=mine, target="cotangent")
    print(pb.ledger)
    assert [row.rule for row in pb.ledger.rows if row.injected] == ["algebraic_silu"]
    ct = torch.randn(4, 3).double()
    with torch.no_grad():
        expected = (ct @ model.last.weight * algebraic(model.first(x) / 0.7)) @ model.first.weight
    torch.testing.assert_close(pb(x, ct)[1], expected, rtol=1e-12, atol=1e-12)
    print(pb.verify())


if __name__ == "__main__":
    main()
