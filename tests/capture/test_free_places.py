"""Places counted from the end of an axis whose size is free: read, and their cotangent put back, at every size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback import EXACT
from tests.helpers import assert_near, draw, pulled_back

PLACES: dict[str, Callable[[Tensor], Tensor]] = {
    "the last": lambda h: h[:, -1],
    "one before the last": lambda h: h[:, -2],
    "the first": lambda h: h[:, 0],
    "the last three": lambda h: h[:, -3:].sum(1),
    "all but the last": lambda h: h[:, :-1].sum(1),
    "the last and the first": lambda h: h[:, -1] * h[:, 0],
    "time first": lambda h: h.transpose(0, 1)[-1],
}


class Net(nn.Module):
    def __init__(self, place: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.head, self.place = nn.Linear(4, 5), nn.Linear(5, 3), place

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.place(torch.tanh(self.inner(x))))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", PLACES)
def test_exact_is_torchs_own_gradient_at_every_size(name: str) -> None:
    torch.manual_seed(0)
    model = Net(PLACES[name]).double().eval()
    pb = fxpullback.compile(model, draw(2, 6, 4), rules=EXACT, target="cotangent", free_size=[1])
    for size in (5, 6, 9):
        x, ct = draw(3, size, 4, seed=size), draw(3, 3, seed=1)
        logits, pullback = pb(x, ct)
        assert_near(logits, model(x).detach())
        assert_near(pullback, pulled_back(model, x, ct), 1e-12)
