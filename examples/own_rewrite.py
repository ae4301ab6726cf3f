"""Pass a rewrite of your own to the lowering: it is named, counted, put in order, and may be left out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import fxpullback
from fxpullback.graph.ir import aten
from fxpullback.graph.rebuild import Site
from fxpullback.lowering.rewrite import Rewrite, replacing


def square_as_product(site: Site) -> Any:
    """A square as the product of a value with itself, which no runtime computes by a power.

    Before: y = pow(x, 2)
    After:  y = x * x
    """
    x, exponent = site.arguments()
    return x * x if exponent == 2 else NotImplemented


SQUARES = Rewrite(
    "squares",
    "a square is a product of a value with itself",
    replacing({aten.pow.Tensor_Scalar: square_as_product}),
    after=("injections",),
)


class Energy(nn.Module):
    """A linear map, squared, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.head = nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.map(x).pow(2))
        return result


def main() -> None:
    """Compile with the rewrite and without it; both give one pullback."""
    torch.manual_seed(0)
    model, x, target = Energy().eval(), torch.randn(4, 12), torch.tensor([0, 1, 2, 0])
    mine = fxpullback.compile(model, x, extensions=[SQUARES])
    plain = fxpullback.compile(model, x, extensions=[SQUARES], without=["squares"])
    print(f"squares rewritten: {mine.rewrites['squares']}, left out: {'squares' not in plain.rewrites}")
    assert mine.rewrites["squares"] == 1
    assert not any(node.target is aten.pow.Tensor_Scalar for node in mine.graph.graph.nodes)
    torch.testing.assert_close(mine(x, target), plain(x, target))
    certificate = mine.verify()
    print(certificate)
    assert certificate.passed


if __name__ == "__main__":
    main()
