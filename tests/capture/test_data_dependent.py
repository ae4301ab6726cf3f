"""Sizes that depend on values: refused in our words, with the operator and the line."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback.contract.errors import CaptureError


class LastMarked(nn.Module):
    """The last place of each sample that a mask marks, as transformers takes the last end token."""

    def __init__(self, by_index: bool) -> None:
        super().__init__()
        self.mix, self.head, self.by_index = nn.Linear(4, 4), nn.Linear(4, 3), by_index

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.mix(x).relu()
        if self.by_index:
            place = (mask * torch.arange(mask.shape[1])).argmax(1)
            last = h[torch.arange(x.shape[0]), place]
        else:
            torch._check(torch.unique_consecutive(mask.sum(1)).numel() <= 1)
            last = h[mask.bool(), :].view(x.shape[0], -1, 4)[:, -1]
        logits: Tensor = self.head(last)
        return logits


X = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 1, 0, 0]])


def test_a_selection_by_values_is_refused_by_name() -> None:
    with pytest.raises(CaptureError, match=r"test_data_dependent\.py:27\) returns as many.*x\[torch\.arange"):
        fxpullback.compile(LastMarked(False).eval(), (X, MASK))


def test_the_advice_works() -> None:
    model = LastMarked(True).eval()
    pb = fxpullback.compile(model, (X, MASK))
    logits, _ = pb(X, torch.tensor([0, 1]), MASK)
    assert torch.allclose(logits, model(X, MASK), atol=1e-6)
    same = LastMarked(False).eval()
    same.load_state_dict(model.state_dict())
    assert torch.equal(same(X, MASK), model(X, MASK))
