"""The cost of a certificate is counted beforehand; a long one is announced, drawn of fewer samples, and as strict."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

import fxpullback
from fxpullback.certify import cost
from fxpullback.graph.ir import aten, calls, outputs
from fxpullback.graph.rebuild import rebuild
from tests.helpers import changed, draw, graph_of


def test_operations_are_counted() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(2, 6, 3, groups=2), nn.ReLU(), nn.ConvTranspose2d(6, 4, 2, 2), nn.Flatten(),
                           nn.Linear(4 * 12 * 12, 5)).double()  # fmt: skip
    convolution, transposed, linear = 6 * 36 * 9, 6 * 36 * 4 * 4, 576 * 5
    assert cost.billions(graph_of(layers, 2, 8, 8)) == pytest.approx(2e-9 * (convolution + transposed + linear))
    other = draw(4, 7)
    assert cost.billions(graph_of(lambda x: (x @ x.transpose(1, 2)) @ other, 4, 3)) == pytest.approx(
        2e-9 * (4 * 4 * 3 + 4 * 7 * 4)
    )


@pytest.fixture
def compiled() -> fxpullback.Pullback:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv3d(1, 3, 3, 2), nn.ReLU(), nn.Conv3d(3, 3, 3, 1, 1), nn.Flatten(), nn.Linear(81, 4))
    return fxpullback.compile(layers.eval(), torch.randn(2, 1, 7, 7, 7))


def test_few_samples_are_drawn_of_a_heavy_model(compiled: fxpullback.Pullback, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled.verify().environment["batches"] == [1, cost.MANY]
    monkeypatch.setattr(cost, "HEAVY", 0.0)
    certificate = compiled.verify()
    assert certificate.passed
    assert certificate.environment["batches"] == [1, cost.FEW]


@pytest.mark.parametrize("at", [0, 1])
def test_few_samples_find_what_mixes_a_batch(
    compiled: fxpullback.Pullback, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(cost, "HEAVY", 0.0)
    for target, *rest in ((aten.flip.default, [0]), (aten.mul.Tensor, 1.001), (aten.roll.default, [1], [0])):
        step = rebuild(compiled.step, lambda site: NotImplemented)
        found = outputs(step.graph)[at]
        assert found in set(calls(step.graph))
        changed(step, found, target, *rest)
        assert not replace(compiled, step=step).verify().passed


def test_a_long_certificate_is_announced(compiled: fxpullback.Pullback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "LONG", 0.0)
    with pytest.warns(cost.LongCertificateWarning, match="takes about 0 s of processor time.*certify=False"):
        cost.samples(compiled.captured)
