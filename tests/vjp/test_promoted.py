"""Values of several floating-point types in one model: cotangents come back in that of the argument."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fxpullback
from fxpullback import EXACT
from tests.helpers import Flat, assert_near, draw, pulled_back

WIDE = torch.linspace(0.3, 1.7, 4, dtype=torch.float64)

MIXED: dict[str, Callable[[Tensor], Tensor]] = {
    "product": lambda x: x.float() * WIDE * 3.1,
    "sum": lambda x: (x.float() * x.float() + WIDE) ** 2,
    "quotient": lambda x: (x.float() / WIDE).sin(),
    "difference": lambda x: WIDE - x.float().sin() * WIDE,
    "choice": lambda x: torch.where(x > 0, x.float().exp(), WIDE) * WIDE,
    "join": lambda x: torch.cat([x.float().exp(), WIDE.expand(x.shape[0], 4)], 1) * 0.7,
    "broadcast": lambda x: x.float()[:, None].exp() * WIDE[:, None],
}


@pytest.mark.parametrize("name", MIXED)
def test_exact_is_torchs_own_gradient(name: str) -> None:
    function, x = MIXED[name], draw(3, 4)
    flat = Flat(lambda x: function(x).double()).eval()
    pb = fxpullback.compile(flat, draw(2, 4), rules=EXACT, target="cotangent")
    ct = draw(3, pb.classes, seed=1)
    expected = pulled_back(flat, x, ct)
    assert_near(pb(x, ct)[1], expected, 1e-12)
