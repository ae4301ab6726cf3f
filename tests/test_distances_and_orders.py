"""Distances, norms, powers and orders, as models use them: compiled with no option, certified, written to a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import EXACT
from fxpullback.export import to_onnx
from fxpullback.graph.float64 import in_float64
from tests.helpers import assert_near, draw, pulled_back

Part = Callable[[Tensor, Tensor], Tensor]
PROTOTYPES, POWERS = draw(5, 6, seed=1), draw(6, seed=2).abs() + 2

DISTANCES: tuple[Part, ...] = (
    lambda a, b: F.cosine_similarity(a, b).unsqueeze(1),
    lambda a, b: F.cosine_similarity(a[:, None], PROTOTYPES.to(a.dtype)[None], -1),
    *(lambda a, b, p=p: F.pairwise_distance(a, b, p, keepdim=True) for p in (1.0, 2.0, 3.0)),
    *(lambda a, b, p=p: -torch.cdist(a, PROTOTYPES.to(a.dtype), p) for p in (1.0, 2.0, 2.5)),
    lambda a, b: torch.cdist(a.reshape(-1, 2, 3), b.reshape(-1, 2, 3)).flatten(1),
    *(lambda a, b, p=p: F.normalize(a, p) * b for p in (0.0, 1.0, 2.0, 3.0)),
    lambda a, b: F.triplet_margin_loss(a, b, a * b, reduction="none").unsqueeze(1),
)
ORDERS: tuple[Part, ...] = (
    lambda a, b: torch.cummax(a, 1)[0] + torch.cummin(b.relu(), 1)[0],
    lambda a, b: torch.cumprod(a, 1) + torch.logcumsumexp(b, 1),
    lambda a, b: torch.median(a, 1, keepdim=True)[0] + torch.kthvalue(b, 2, 1, keepdim=True)[0],
    lambda a, b: torch.sort(a, stable=True)[0] + torch.quantile(b, 0.3, 1, keepdim=True),
    lambda a, b: torch.remainder(a, 0.3) + torch.fmod(b, 0.7) + torch.frac(a) + torch.div(a, b, rounding_mode="floor"),
    lambda a, b: torch.copysign(a, b) + torch.hypot(a, b) + torch.atan2(a, b) + torch.logaddexp(a, b),
    lambda a, b: torch.round(a, decimals=1) * b + torch.xlogy(a, b.abs() + 1) + torch.fmax(a, b),
    lambda a, b: torch.pow(a.clamp(min=1e-6), POWERS.to(a.dtype)) + torch.pow(2.0, b),
)


class Pair(nn.Module):
    """Two linear maps of the input, and what becomes of them."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.parts = nn.Linear(8, 6), nn.Linear(8, 6), parts

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        return torch.cat([part(a, b) for part in self.parts], 1)


class GeM(nn.Module):
    """Generalised mean pooling, its power learnt."""

    def __init__(self, power: float, size: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
        self.p = nn.Parameter(torch.full((size, 1, 1), power))

    def forward(self, x: Tensor) -> Tensor:
        kept = F.relu(self.conv(x)).clamp(min=1e-6).pow(self.p)
        return self.head(F.adaptive_avg_pool2d(kept, 1).pow(1.0 / self.p).flatten(1))  # type: ignore[no-any-return]


def exact_equals_torch(model: nn.Module, x: Tensor) -> None:
    """The pullback of `EXACT`, in float64, is eager autograd through the model itself."""
    wide = model.double()
    step = in_float64(fxpullback.compile(wide, x.double(), rules=EXACT).step)
    fresh = draw(3, *x.shape[1:], seed=4)
    ct = draw(*wide(fresh).shape, seed=5)
    logits, pullback = step(fresh, ct)[:2]
    assert_near(logits, wide(fresh).detach())
    assert_near(pullback, pulled_back(wide, fresh, ct))


@pytest.mark.parametrize("parts", [DISTANCES, ORDERS], ids=["distances", "orders"])
def test_a_file_of_them(parts: tuple[Part, ...], tmp_path: Path) -> None:
    pb = fxpullback.compile(Pair(parts).eval(), torch.randn(2, 8))
    to_onnx(pb, tmp_path / "model.onnx")


@pytest.mark.parametrize("parts", [DISTANCES, ORDERS], ids=["distances", "orders"])
def test_the_exact_pullback_is_that_of_torch(parts: tuple[Part, ...]) -> None:
    exact_equals_torch(Pair(parts).eval(), torch.randn(2, 8))


@pytest.mark.parametrize(("power", "size"), [(2.0, 1), (3.0, 1), (2.3, 1), (3.3, 4)])
def test_generalised_mean_pooling_of_any_power(power: float, size: int) -> None:
    model, x = GeM(power, size).eval(), torch.randn(2, 3, 8, 8)
    assert fxpullback.compile(model, x).verify().passed
    exact_equals_torch(model, x)


@pytest.mark.parametrize(
    "steps",
    [
        lambda a: a // 0.3,
        lambda a: torch.floor_divide(a, a.exp()),
        lambda a: torch.heaviside(a, torch.full_like(a, 0.5)),
    ],
    ids=["number", "computed", "heaviside"],
)
def test_steps_that_torch_has_no_derivative_of_are_constant(steps: Callable[[Tensor], Tensor]) -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a = nn.Linear(8, 6)

        def forward(self, x: Tensor) -> Tensor:
            a: Tensor = self.a(x)
            return steps(a) * a

    model, x, ct = Steps().double().eval(), draw(3, 8), draw(3, 6, seed=1)
    pb = fxpullback.compile(model, draw(2, 8, seed=2), rules=EXACT)
    assert pb.verify().passed
    held = steps(model.a(x)).detach()
    assert_near(in_float64(pb.step)(x, ct)[1], pulled_back(lambda z: model.a(z) * held, x, ct))
