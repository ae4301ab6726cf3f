"""Bounds of quantised models: as far as rounding moves what lies halfway between two levels, and no further."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback import EXACT
from fxpullback.certify.levels import MOST, bound, is_quantised, moved

USUAL = 1e-4


class Rounded(nn.Module):
    """Levels 0.25 apart, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.fake_quantize_per_tensor_affine(x, 0.25, 0, -128, 127))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def captured() -> torch.fx.GraphModule:
    return fxpullback.compile(Rounded().eval(), torch.randn(2, 64), rules=EXACT).captured


def test_values_halfway_between_two_levels_raise_the_bound(captured: torch.fx.GraphModule) -> None:
    x = torch.round(torch.randn(3, 64) * 4) / 4
    x[:, 0] = 0.125  # halfway
    raised, why = bound(captured, (x,), USUAL)
    assert USUAL < raised <= MOST
    assert "rounding alone moves the logits" in why
    step = 0.25 * float(Rounded().last.weight[:, 0].detach().abs().max())  # what one level makes of the logits
    with torch.no_grad():
        plain = captured(x)[0]
    assert raised <= 2 * step / float(plain.abs().max()) + 1e-6


def test_others_are_held_to_the_usual_bound(captured: torch.fx.GraphModule) -> None:
    x = torch.round(torch.randn(3, 64) * 4) / 4  # each at a level
    assert bound(captured, (x,), USUAL) == (USUAL, "")
    plain = fxpullback.compile(nn.Linear(6, 3).eval(), torch.randn(2, 6), rules=EXACT).captured
    assert not is_quantised(plain)
    assert bound(plain, (torch.randn(2, 6),), USUAL) == (USUAL, "")


def test_what_is_moved_is_a_copy(captured: torch.fx.GraphModule) -> None:
    before = captured.code
    assert moved(captured, 0) is not captured
    assert captured.code == before
    assert is_quantised(captured)
