"""Give an operator a rule of your own, in a rule set of your own: docs/adding-a-rule.md as a program."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import fxpullback
from fxpullback.contract.errors import UnsupportedGateError
from fxpullback.graph.ir import aten, stop_gradient
from fxpullback.rules import gate


@gate(aten.atan.default, temperature=0.6)
def atan(x: Tensor, *, temperature: float) -> Tensor:
    """Arc tangent, its slope widened by the noise.

    Primal:  atan(x)
    Adjoint: ct / (1 + x^2 + T^2)
    Limit:   T -> 0 gives the derivative
    """
    return x * stop_gradient(torch.reciprocal(x * x + (1 + temperature**2)))


class Net(nn.Module):
    """A gate that no rule set has."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(torch.atan(self.first(x)))
        return logits


def main() -> None:
    torch.manual_seed(0)
    model, example = Net().eval(), torch.randn(1, 6)
    try:
        fxpullback.compile(model, example)
    except UnsupportedGateError as error:
        print(error)
    mine = fxpullback.SEMANTIC.with_rules(atan)
    pb = fxpullback.compile(model, example, rules=mine)
    print(pb.ledger)
    print(pb.verify())


if __name__ == "__main__":
    main()
