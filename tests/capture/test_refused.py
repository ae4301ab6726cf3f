"""Random operators and statistics of the batch are refused by name; following the advice works."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import EXACT, SEMANTIC, RuleSet
from fxpullback.contract.errors import CaptureError
from tests.helpers import Flat, draw


class MonteCarlo(nn.Module):
    """Drops out in evaluation mode too."""

    def __init__(self, training: bool | None = None) -> None:
        super().__init__()
        self.inner, self.on = nn.Linear(4, 3), training

    def forward(self, x: Tensor) -> Any:
        return F.dropout(self.inner(x), 0.5) if self.on is None else F.dropout(self.inner(x), 0.5, self.training)


def _attention(x: Tensor) -> Tensor:
    h = x.reshape(-1, 1, 2, 2)
    return F.scaled_dot_product_attention(h, h, h, dropout_p=0.3)


DRAWN: dict[str, Any] = {
    "dropout": lambda x: F.dropout(x, 0.5),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.5, training=True),
    "feature_dropout": lambda x: F.dropout2d(x.reshape(-1, 2, 2, 1), 0.5, training=True),
    "attention": _attention,
    "randn_like": lambda x: x + torch.randn_like(x),
    "rand": lambda x: x + torch.rand(4, dtype=x.dtype),
    "bernoulli": lambda x: x * torch.bernoulli(torch.sigmoid(x)),
    "rrelu": lambda x: F.rrelu(x, training=True),
    "gumbel": lambda x: F.gumbel_softmax(x),
}


@pytest.mark.parametrize("name", DRAWN)
def test_random_operators_are_refused_by_name(name: str) -> None:
    with pytest.raises(CaptureError, match=r"draws random numbers in evaluation mode.*two calls of the model"):
        fxpullback.compile(Flat(DRAWN[name]).double().eval(), draw(1, 4))


def test_following_the_advice_works() -> None:
    with pytest.raises(CaptureError, match=r"pass training=self.training"):
        fxpullback.compile(MonteCarlo().double().eval(), draw(1, 4))
    assert fxpullback.compile(MonteCarlo(training=True).double().eval(), draw(1, 4)).verify().passed
    noisy = lambda x, noise: x * 2 + noise  # noqa: E731
    assert fxpullback.compile(Two(noisy).double().eval(), (draw(2, 4), draw(2, 4, seed=1))).verify().passed


class Two(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, noise: Tensor) -> Any:
        return self.function(x, noise)


def test_numbers_that_the_logits_do_not_hold_may_be_drawn() -> None:
    def drawn(x: Tensor) -> Tensor:
        torch.randn_like(x)
        return x * x

    assert fxpullback.compile(Flat(drawn).double().eval(), draw(1, 4)).verify().passed


def normalised(norm: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


@pytest.mark.parametrize("rules", [SEMANTIC, EXACT], ids=["semantic", "exact"])
def test_statistics_of_the_batch_are_refused_and_the_advice_works(rules: RuleSet) -> None:
    x = torch.randn(2, 2, 8, 8)
    with pytest.raises(CaptureError, match=r"1 \(batchnorm.py:\d+\) normalises by statistics of the batch") as raised:
        fxpullback.compile(normalised(nn.BatchNorm2d(4, track_running_stats=False)), x, rules=rules)
    assert "keep_exact" not in str(raised.value)
    for norm in (nn.BatchNorm2d(4), nn.InstanceNorm2d(4), nn.GroupNorm(2, 4)):
        assert fxpullback.compile(normalised(norm), x, rules=rules).verify().passed


def test_statistics_of_weights_are_no_matter() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            weight = F.batch_norm(self.weight.reshape(1, 4, -1), None, None, training=True).reshape_as(self.weight)
            return F.conv2d(x, weight, self.bias).mean((2, 3))

    assert fxpullback.compile(Standardised(2, 4, 3).eval(), torch.randn(2, 2, 8, 8)).verify().passed
