"""How long a sequence may be: tables of positions bound it, and finding out costs no memory of pairs of places."""

from __future__ import annotations

import resource

import pytest
import torch
from torch import Tensor, nn

import fxpullback

DIM = 4


class Positions(nn.Module):
    """Token and position embeddings; as many positions as the table has."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.words, self.places, self.head = nn.Embedding(9, DIM), nn.Embedding(rows, DIM), nn.Linear(DIM, 3)

    def forward(self, ids: Tensor) -> Tensor:
        places = self.places(torch.arange(ids.shape[1]))
        return self.head(torch.tanh(self.words(ids) + places).mean(1))  # type: ignore[no-any-return]


class Relative(nn.Module):
    """A bias for every pair of places, by their distance, which is clipped: any length is allowed."""

    def __init__(self, far: int = 6) -> None:
        super().__init__()
        self.words, self.head, self.far = nn.Embedding(9, DIM), nn.Linear(DIM, 3), far
        self.bias = nn.Embedding(2 * far + 1, 1)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1])
        apart = (places[None] - places[:, None]).clamp(-self.far, self.far) + self.far
        weights = torch.softmax(self.bias(apart)[..., 0], -1)
        return self.head(torch.tanh(weights @ self.words(ids)).mean(1))  # type: ignore[no-any-return]


def _most(model: nn.Module) -> int | None:
    torch.manual_seed(0)
    pb = fxpullback.compile(model.eval(), {"ids": torch.randint(9, (2, 5))}, at="embeddings", free_size=[1])
    return pb.free[0].most


@pytest.mark.parametrize("rows", [12, 512, 70_000])
def test_a_table_of_positions_bounds_the_length(rows: int) -> None:
    assert _most(Positions(rows)) == rows


def test_pairs_of_places_cost_no_memory_and_allow_any_length() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert _most(Relative()) is None
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2_000_000
    )  # kB; all pairs at once would be 137 GB
