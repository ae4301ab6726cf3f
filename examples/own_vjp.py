"""Give an operator of your own its adjoint: without it a model is refused, with it the certificate passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import fxpullback
from fxpullback.graph.operators import Traits
from fxpullback.vjp.rule import vjp

# An operator of your own: a series without its straight line, the part that a line through all its points explains.
LIBRARY = torch.library.Library("example_signal", "DEF")
LIBRARY.define("detrend(Tensor x) -> Tensor")


def basis(x: Tensor) -> Tensor:
    """The constant and the slope, orthonormal, `[time, 2]`."""
    place = torch.arange(x.shape[-1], device=x.device, dtype=torch.float64) - (x.shape[-1] - 1) / 2
    line: Tensor = torch.nn.functional.normalize(torch.stack([torch.ones_like(place), place], 1), dim=0)
    return line.to(x.dtype)


@torch.library.impl(LIBRARY, "detrend", "CompositeExplicitAutograd")
def detrend(x: Tensor) -> Tensor:
    """x - B B^T x along the last axis."""
    line = basis(x)
    return x - (x @ line) @ line.T


torch.library.register_fake("example_signal::detrend", torch.empty_like, lib=LIBRARY)


OPERATOR = torch.ops.example_signal.detrend.default
# What eager autograd needs; the certificate compares with it.
torch.library.register_autograd("example_signal::detrend", lambda ctx, ct: OPERATOR(ct), lib=LIBRARY)


@vjp(OPERATOR, kind="linear")
def detrend_vjp(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = x - B B^T x:  ct_x = ct - B B^T ct, as the projection is symmetric."""
    return (OPERATOR(ct),)


# What is true of it: linear in its one argument. Rewrites and half precision ask for that.
TRAITS = Traits(OPERATOR, linear=(0,))


class Detrended(nn.Module):
    """A small network on a series without its trend."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(2, 6, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.body(OPERATOR(x))
        return result


def main() -> None:
    """Refused without the rule; certified with it."""
    torch.manual_seed(0)
    model, x = Detrended().eval(), torch.randn(4, 2, 32)
    try:
        fxpullback.compile(model, x)
    except fxpullback.errors.UnsupportedGateError as error:
        print(f"without the rule: {error}\n")
    pb = fxpullback.compile(model, x, extensions=[detrend_vjp, TRAITS])
    print(pb.ledger)
    certificate = pb.verify()
    print(certificate)
    assert certificate.passed


if __name__ == "__main__":
    main()
