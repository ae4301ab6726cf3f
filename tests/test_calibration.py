"""Calibrated temperatures: what they are, what overrides them, and what they are refused for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import fxpullback
from fxpullback import SEMANTIC, calibrate
from fxpullback.contract.errors import ExportError, InputError, RuleError
from fxpullback.export import to_onnx
from tests.several_inputs import CASES, Conditioned


def network(depth: int = 2) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(3 * (16 // 2**depth) ** 2, 4)).eval()


def pictures(count: int = 6) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_temperature_is_spread_times_deviation() -> None:
    model, x = network(), pictures()
    rules = fxpullback.calibrate(model, x, spread=0.7)
    before_relu = model[0](x).detach()  # type: ignore[index]
    after_relu = torch.relu(before_relu)
    assert rules.calibrated["relu"] == pytest.approx(0.7 * float(before_relu.std(correction=0)), rel=1e-5)
    assert rules.calibrated["max_pool2d"] == pytest.approx(0.35 * float(after_relu.std(correction=0)), rel=1e-5)
    pb = fxpullback.compile(model, x[:1], rules=rules)
    listed = {row.node: row.temperature for row in pb.ledger.rows if row.rule}
    assert listed == dict(rules.calibrated)


def test_batches_count_as_one_set() -> None:
    whole = fxpullback.calibrate(network(), pictures()).calibrated
    parts = fxpullback.calibrate(network(), [pictures()[:1], pictures()[1:]]).calibrated
    assert dict(whole) == pytest.approx(dict(parts), rel=1e-6)  # convolutions of another batch size round otherwise


@pytest.mark.parametrize("before", [True, False])
def test_a_temperature_by_hand_stays(before: bool) -> None:
    if before:
        rules = fxpullback.calibrate(network(), pictures(), rules=SEMANTIC.with_temperature(relu=0.4))
    else:
        rules = fxpullback.calibrate(network(), pictures()).with_temperature(relu=0.4)
    pb = fxpullback.compile(network(), pictures(1), rules=rules)
    assert {row.temperature for row in pb.ledger.rows if row.rule == "relu"} == {0.4}
    assert 0.3 not in {row.temperature for row in pb.ledger.rows if row.rule == "max_pool"}


def test_rules_of_another_model_are_refused() -> None:
    of_two, of_three = (fxpullback.calibrate(network(depth), pictures()) for depth in (2, 3))
    for rules, depth in ((of_two, 3), (of_three, 2)):
        with pytest.raises(RuleError, match="calibrated on another model: 2 gates do not match, such as max_pool2d_2"):
            fxpullback.compile(network(depth), pictures(1), rules=rules)


def test_bad_calibration_is_refused() -> None:
    with pytest.raises(InputError, match="no calibration pictures"):
        fxpullback.calibrate(network(), [])
    with pytest.raises(InputError, match="NaN or infinite"):
        fxpullback.calibrate(network(), pictures() * float("nan"))
    with pytest.raises(RuleError, match="spread is 0"):
        fxpullback.calibrate(network(), pictures(), spread=0)


def test_float64_is_not_written(tmp_path: Path) -> None:
    pb = fxpullback.compile(network().double(), pictures(1).double())
    with pytest.raises(ExportError, match="files are float32"):
        to_onnx(pb, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", ["condition", "ids", "bias"])
def test_batches_with_extras(case: str) -> None:
    """One batch in parts, or several, give the temperatures of the whole; all of them by hand for one gate."""
    model, (x, *extras) = CASES[case].network(), CASES[case].inputs(6, 3)
    whole = calibrate(model, [(x, *extras)]).calibrated
    if case == "bias":
        halves = [(x[:3], *extras), (x[3:], *extras)]
    else:
        halves = [tuple(t[:3] for t in (x, *extras)), tuple(t[3:] for t in (x, *extras))]
    assert calibrate(model, halves).calibrated == pytest.approx(whole)
    pb = fxpullback.compile(model, (x, *extras), rules=calibrate(model, halves))
    assert pb.verify().passed
    if case == "condition":
        assert isinstance(model, Conditioned)
        hidden = model.features(x).detach()
        assert whole["gelu"] == pytest.approx(0.9 * float(hidden.std(unbiased=False)))


def test_batches_of_another_kind_are_refused() -> None:
    model, (x, condition) = CASES["condition"].network(), CASES["condition"].inputs(6, 3)
    with pytest.raises(InputError, match="different numbers of inputs"):
        calibrate(model, [(x, condition), x])
    with pytest.raises(InputError, match=r"condition is \[3, 3\]"):
        calibrate(model, [(x, condition), (x, condition[:3])])
