"""What the calibration benchmark measures, where it is known: a linear model, and a rescaled one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.calibration import KINDS, Case, agreement, drops, lines, measure
from fxpullback.capture import capture
from tests.helpers import draw
from tests.test_calibration import network


def case() -> Case:
    x = draw(2, 3, 16, 16).float()
    return Case(capture(network(), x[:1]), x, torch.tensor([0, 3]), draw(4, 3, 16, 16, seed=1).float())


def test_a_linear_model_falls_as_its_pullback_says() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(3 * 16 * 16, 4)
    x, y = draw(2, 3, 16, 16).float(), torch.tensor([0, 3])
    fallen, changes = drops(lambda z: (linear(z.flatten(1)),), x, y)
    assert fallen.shape == (2, 64)
    pullback = linear.weight.detach()[y].reshape(2, 3, 16, 16)
    assert agreement(pullback * changes, fallen) == pytest.approx(1, abs=1e-4)
    assert agreement(pullback * -changes, fallen) == pytest.approx(-1, abs=1e-4)


def test_temperatures_and_pullbacks_by_what_they_were_calibrated_on() -> None:
    of = case()
    ratios, pullbacks = measure(of)
    assert set(ratios) == {"relu", "max_pool2d", "relu_1", "max_pool2d_1"}
    assert all(0.1 < ratio < 10 for ratio in ratios.values())
    assert tuple(pullbacks) == KINDS
    assert torch.equal(pullbacks["own"][1:], of.pullback(of.on(of.x[1:]), slice(1, 2)))
    assert not torch.equal(pullbacks["noise"], pullbacks["logistic"])
    near, agreed = lines("small", of)
    assert (near.count("|"), agreed.count("|")) == (12, 8)
