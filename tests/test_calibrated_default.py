"""Without rules, `compile` calibrates by itself: on noise like pictures, or on the examples where they are none."""

from __future__ import annotations

import json
import unittest.mock
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import REFERENCE, SEMANTIC, calibrate
from fxpullback.contract.calibrated import calibrated_text
from fxpullback.contract.errors import InputError
from fxpullback.ledger import Ledger
from fxpullback.picture_noise import picture_noise
from tests.helpers import assert_near, draw
from tests.several_inputs import CASES
from tests.test_calibration import network

NOISE = {"kind": "noise", "samples": 16, "seed": 0, "spectrum": "1/f", "deviation": 0.5}
PICTURE = torch.zeros(1, 3, 16, 16)


def series() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 7, 3)).eval()


def temperatures(pb: fxpullback.Pullback) -> dict[str, float | None]:
    return {row.node: row.temperature for row in pb.ledger.rows if row.rule}


def test_without_rules_compile_calibrates_on_noise() -> None:
    pb = fxpullback.compile(network(), PICTURE)
    on_noise = calibrate(network(), picture_noise((3, 16, 16)).float())
    assert temperatures(pb) == pytest.approx(dict(on_noise.calibrated))
    assert dict(pb.rules.calibrated_on) == NOISE
    assert pb.verify().passed
    assert temperatures(fxpullback.compile(network(), PICTURE, rules=pb.rules)) == temperatures(pb)


def test_rules_that_are_given_keep_their_temperatures() -> None:
    pb = fxpullback.compile(network(), PICTURE, rules=SEMANTIC)
    assert set(temperatures(pb).values()) == {0.6, 0.3}
    assert not pb.rules.calibrated_on
    assert not pb.ledger.calibrated_on
    assert "calibrated_on" not in pb.rules.describe()


def test_a_set_with_a_spread_is_calibrated_where_it_is_compiled() -> None:
    whole = temperatures(fxpullback.compile(network(), PICTURE))
    half = temperatures(fxpullback.compile(network(), PICTURE, rules=REFERENCE.with_spread(0.45)))
    assert half == pytest.approx({name: 0.5 * float(t or 0) for name, t in whole.items()})
    pb = fxpullback.compile(network(), PICTURE, rules=SEMANTIC.with_temperature(relu=0.4).with_spread())
    assert {row.temperature for row in pb.ledger.rows if row.rule == "relu"} == {0.4}
    again = calibrate(network(), draw(4, 3, 16, 16).float(), rules=pb.rules)
    assert dict(again.calibrated_on) == {"kind": "pictures", "samples": 4}


def test_the_model_is_captured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    export = unittest.mock.Mock(wraps=torch.export.export)
    monkeypatch.setattr(torch.export, "export", export)
    fxpullback.compile(network(), PICTURE)
    assert export.call_count == 1


@pytest.mark.parametrize("source", ["example", "program", "file"])
def test_calibrate_without_pictures(tmp_path: Path, source: str) -> None:
    wanted = fxpullback.compile(network(), PICTURE).rules
    model: Any = network()
    if source == "example":
        found = calibrate(model, example_inputs=PICTURE)
    else:
        two = torch.zeros(2, 3, 16, 16)
        model = torch.export.export(model, (two,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        if source == "file":
            torch.export.save(model, tmp_path / "model.pt2")
            model = tmp_path / "model.pt2"
        found = calibrate(model)
    assert dict(found.calibrated) == pytest.approx(dict(wanted.calibrated))
    assert found.describe()["calibrated_on"] == NOISE


def test_what_is_no_picture_is_calibrated_on_the_examples() -> None:
    x = draw(5, 2, 9).float()
    pb, same = fxpullback.compile(series(), x), calibrate(series(), x)
    assert temperatures(pb) == pytest.approx(dict(same.calibrated))
    assert dict(pb.rules.calibrated_on) == {"kind": "examples", "samples": 5}


@pytest.mark.parametrize(
    ("example", "why"), [(torch.zeros(2, 2, 9), "constant"), (torch.full((2, 2, 9), torch.nan), "NaN or infinite")]
)
def test_examples_that_say_nothing_leave_the_temperatures(example: Tensor, why: str) -> None:
    pb = fxpullback.compile(series(), example)
    assert temperatures(pb) == {"relu": 0.6}
    assert pb.rules.calibrated_on["kind"] == "none"
    assert why in pb.rules.calibrated_on["why"]
    assert f"not calibrated: the example inputs {'are' if why == 'constant' else 'hold'} {why}" in str(pb.ledger)


class Shifted(nn.Module):
    """A picture, a batched shift and a mask without a batch that is -inf at places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor, shift: Tensor, mask: Tensor) -> Tensor:
        y = torch.relu(self.conv(x) + shift[:, :, None, None]) + mask
        result: Tensor = self.head(torch.amax(y, (2, 3)))
        return result


def test_extras_are_the_examples_rows_over_again() -> None:
    torch.manual_seed(0)
    model, x, shift = Shifted().eval().requires_grad_(False), torch.zeros(3, 3, 8, 8), draw(3, 4).float()
    mask = torch.zeros(8, 8)
    mask[:2] = -torch.inf
    pb = fxpullback.compile(model, (x, shift, mask))
    noise = picture_noise((3, 8, 8)).float()
    inside = model.conv(noise) + shift[torch.arange(16) % 3][:, :, None, None]
    assert pb.rules.calibrated["relu"] == pytest.approx(0.9 * float(inside.std(correction=0)), rel=1e-5)
    seen = torch.relu(inside)[:, :, 2:]  # what the mask leaves
    assert pb.rules.calibrated["amax"] == pytest.approx(0.45 * float(seen.std(correction=0)), rel=1e-5)


class Pooled(nn.Module):
    """A max-pool whose padding is its own, or stands in front of it."""

    def __init__(self, *, inside: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.inside = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3), inside

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        wide = F.max_pool2d(y, 3, 2, 1) if self.inside else F.max_pool2d(F.pad(y, [1] * 4, value=-torch.inf), 3, 2)
        return self.head(wide.mean((2, 3)))  # type: ignore[no-any-return]


def test_a_padding_of_minus_infinity_says_nothing_of_the_scale() -> None:
    x, target = draw(3, 3, 8, 8).float(), torch.tensor([0, 1, 2])
    own, before = (fxpullback.compile(Pooled(inside=inside).eval(), x) for inside in (True, False))
    assert temperatures(before) == pytest.approx(temperatures(own))
    assert_near(before(x, target)[1], own(x, target)[1], 1e-6)


@pytest.mark.parametrize("case", list(CASES))
def test_models_of_several_inputs(case: str) -> None:
    pb = fxpullback.compile(CASES[case].network(), CASES[case].inputs(2, 1))
    assert pb.rules.calibrated_on["kind"] in ("noise", "examples")
    assert pb.verify().passed


def test_what_calibrate_needs() -> None:
    with pytest.raises(InputError, match=r"a Sequential does not say what shape.*calibrate\(model, pictures\)"):
        calibrate(network())
    with pytest.raises(InputError, match="leave out one"):
        calibrate(network(), PICTURE, example_inputs=PICTURE)


def test_the_ledger_says_what_temperatures_were_calibrated_on() -> None:
    pb = fxpullback.compile(network(), PICTURE)
    again = Ledger.from_dict(json.loads(pb.ledger.to_json()))
    assert again == pb.ledger
    last = str(pb.ledger).splitlines()[-1]
    assert last == (
        "temperatures calibrated on 16 samples of noise with the spectrum of pictures (1/f, deviation 0.5, seed 0)"
    )


@pytest.mark.parametrize(
    ("on", "text"),
    [
        ({}, ""),
        ({"kind": "pictures", "samples": 1}, "calibrated on 1 picture"),
        ({"kind": "examples", "samples": 3}, "calibrated on 3 example inputs"),
        ({"kind": "none", "why": "so"}, "not calibrated: so"),
    ],
)
def test_calibration_in_words(on: dict[str, Any], text: str) -> None:
    assert calibrated_text(on) == text
