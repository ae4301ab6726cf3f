"""An operator of your own, from the model to a certified ONNX file: docs/adding-a-translation.md as a program."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback.contract.errors import ExportError
from fxpullback.export.onnx import Builder, to_onnx
from fxpullback.graph.ir import stop_gradient
from fxpullback.rules import gate


@torch.library.custom_op("mylib::bump", mutates_args=())
def bump(x: Tensor, width: float) -> Tensor:
    """x exp(-(x / width)^2): near zero the value, far away nothing."""
    return x * torch.exp(-((x / width) ** 2))


@bump.register_fake
def _(x: Tensor, width: float) -> Tensor:
    return torch.empty_like(x)


OPERATOR = torch.ops.mylib.bump.default


@gate(OPERATOR, temperature=1.0)
def soft_bump(x: Tensor, width: float, *, temperature: float) -> Tensor:
    """The bump, its factor held constant.

    Primal:  x exp(-(x / width)^2)
    Adjoint: ct * exp(-(x / (width T))^2)
    Limit:   T = 1 gives its own factor
    """
    return x * stop_gradient(torch.exp(-((x / (width * temperature)) ** 2)))


def bump_in_onnx(b: Builder, x: ir.Value, width: float) -> ir.Value:
    """Mul and Exp: `x * exp(-(x / width)^2)`."""
    scaled = b.op("Div", x, b.const(width, b.dtype))
    return b.op("Mul", x, b.op("Exp", b.op("Neg", b.op("Mul", scaled, scaled))))


class Net(nn.Module):
    """Two linear maps and the operator between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(bump(self.first(x), 1.5))
        return logits


def main() -> None:
    torch.manual_seed(0)
    rules = replace(fxpullback.SEMANTIC, name="mine", rules=(*fxpullback.SEMANTIC.rules, soft_bump))
    pb = fxpullback.compile(Net().eval(), torch.randn(1, 6), rules=rules)
    with tempfile.TemporaryDirectory() as folder:
        try:
            to_onnx(pb, Path(folder) / "net.onnx")
        except ExportError as error:
            print(error)
        print(to_onnx(pb, Path(folder) / "net.onnx", translations={OPERATOR: bump_in_onnx}).name)


if __name__ == "__main__":
    main()
