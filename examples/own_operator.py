"""Carry a custom operator from the model to the file: gate rule, traits, translation to ONNX, certificate."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback.export import Session, to_onnx
from fxpullback.export.onnx import Builder
from fxpullback.graph.ir import stop_gradient
from fxpullback.graph.operators import Trait, Traits
from fxpullback.rules.rule import gate
from fxpullback.rules.smoothing import normal_cdf

# The operator, as torch.library has it: a square above zero, nothing below.
LIBRARY = torch.library.Library("example_gates", "DEF")
LIBRARY.define("squared_relu(Tensor x) -> Tensor")
LIBRARY.impl("squared_relu", lambda x: torch.relu(x) ** 2, "CompositeExplicitAutograd")
torch.library.register_fake("example_gates::squared_relu", torch.empty_like, lib=LIBRARY)
SQUARED_RELU = torch.ops.example_gates.squared_relu.default


@gate(SQUARED_RELU, temperature=0.6)
def squared_relu(x: Tensor, *, temperature: float) -> Tensor:
    """Squared ReLU, read as z g(z) with the gate g(z) = max(z, 0).

    Primal:  max(x, 0)^2
    Adjoint: ct * E max(x + T e, 0) = ct * (x Phi(x / T) + T phi(x / T))
    Limit:   T -> 0 gives max(x, 0)
    """
    u = x / temperature
    density = torch.exp(u * u * -0.5) * (temperature * 0.3989422804014327)
    return x * stop_gradient(x * normal_cdf(u) + density)


TRAITS = Traits(SQUARED_RELU, frozenset({Trait.POINTWISE}))  # what rewrites and half precision may take for granted


def translation(b: Builder, x: ir.Value) -> ir.Value:
    """Relu, then a product with itself."""
    positive = b.op("Relu", x)
    return b.op("Mul", positive, positive)


class Net(nn.Module):
    """A small network with the gate in it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(SQUARED_RELU(self.first(x)).mean((2, 3)))
        return result


def main() -> None:
    """Compile, write, serve; what ONNX Runtime returns is what the graph returns."""
    torch.manual_seed(0)
    model, x, target = Net().eval(), torch.randn(3, 3, 12, 12), torch.tensor([0, 2, 1])
    pb = fxpullback.compile(model, x, extensions=[squared_relu, TRAITS])
    print(pb.ledger)
    with tempfile.TemporaryDirectory() as folder:
        path = to_onnx(pb, Path(folder) / "net.onnx", translations={SQUARED_RELU: translation})
        result = Session(path)(x.numpy(), target.numpy())
    logits, pullback = pb(x, target)
    torch.testing.assert_close(torch.from_numpy(result.logits), logits)
    torch.testing.assert_close(torch.from_numpy(result.pullback), pullback)
    print("written, certified, and served by ONNX Runtime")


if __name__ == "__main__":
    main()
