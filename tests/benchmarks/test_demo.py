"""The table of the demo's taps, on few pictures."""

from __future__ import annotations

import pytest

from benchmarks import demo


def test_calibrated_contributions_in_front_of_attention_lie_on_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "CHOICES", demo.CHOICES[:2])
    found = demo.shares(3, 20)
    assert set(found) == set(demo.RULES)
    pullback, auto, taps = found["calibrated"]
    assert 0.5 < pullback < taps
    assert auto < taps
    assert found["gradient"][2] < taps
    assert demo.table(3, 2).count("\n") == 7
