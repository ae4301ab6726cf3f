"""The benchmark of speed, on what takes no time: no test here depends on how fast anything is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fxpullback
from benchmarks.alternate import Times, alternate
from benchmarks.peak import peak_mb
from benchmarks.profile import told
from benchmarks.results import page
from benchmarks.speed import LEAST, at_batch, eager, line, plain_forward, runner
from fxpullback.export import Session, to_onnx

ROW: dict[str, Any] = {
    "name": "net",
    "batches": {
        "8": {
            "forward_ms": 10.0,
            "rounds": {"soft": 9, "double": 5, "ascent": 5, "eager": 5},
            "ratio": {"soft": 2.5, "double": 5.0, "ascent": 14.0},
            "spread": {"soft": 0.04, "double": 0.1, "ascent": 0.1, "eager": 0.1},
            "faster": 2.4,
        }
    },
    "picture_ms": {"1": 4.0, "8": 3.0, "32": 2.0},
    "megabytes": {"forward": 10.0, "soft": 10.2},
    "peak_mb": {"forward": 50.0, "soft": 100.0},
    "soft_compile_s": 7.4,
    "versions": {"torch": "9"},
    "date": "2026-01-01",
}


def test_ratios_are_taken_round_by_round() -> None:
    slow, fast = Times((2.0, 40.0, 6.0, 8.0)), Times((1.0, 10.0, 3.0, 4.0))
    assert slow.ratio(fast) == 2.0
    assert slow.median == 7.0
    assert Times((2.0, 4.0, 6.0)).spread(Times((1.0, 2.0, 3.0))) == 0.0


def test_calls_take_turns_and_the_first_round_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.alternate.REST", 0.0)
    order: list[str] = []
    found = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, budget=0.0, least=3)
    assert order == ["a", "b"] * 4
    assert [len(times.seconds) for times in found.values()] == [3, 3]


def test_what_is_timed_is_what_it_says(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).eval()
    x = torch.randn(2, 3, 8, 8)
    pb = fxpullback.compile(model, x[:1])
    file = to_onnx(pb, tmp_path / "soft.onnx", certify=False)
    plain_forward(model, x[:1], tmp_path / "forward.onnx")
    (logits,) = runner(tmp_path / "forward.onnx", x.numpy())()
    soft = runner(file, x.numpy())()
    assert np.allclose(logits, soft[0], atol=1e-5)
    (expected,) = eager(pb, x)()
    assert np.allclose(soft[1], expected.numpy(), atol=1e-6)
    found = at_batch({"forward": tmp_path / "forward.onnx", "soft": file}, pb, x, budget=0)
    assert found["rounds"] == {"soft": LEAST, "eager": LEAST}
    assert found["ratio"].keys() == {"soft"}
    assert found["spread"].keys() == {"soft", "eager"}
    assert min(found["forward_ms"], found["faster"], found["ratio"]["soft"]) > 0
    assert peak_mb(file, 8) > 0
    assert "Conv" in told(file, {"input": x.numpy(), "target": np.zeros(2, np.int64)})
    assert Session(file).metadata.rewrites == dict(pb.rewrites)


def test_the_page_has_the_rows_and_keeps_what_others_wrote() -> None:
    before = "<!-- limits -->\nwhy\n<!-- /limits -->\n<!-- precision -->\n## Half\n<!-- /precision -->\n"
    text = page([ROW], before)
    assert "| net | 8 | 10.0 | 2.50 | 4% | 5.00 | 14.00 | 2.4x | 0.75 | 1.02 | 2.0 | 7 |" in text
    assert "| net | 32 | | | | | | | 0.50 | | | |" in text
    assert "<!-- limits -->\nwhy\n<!-- /limits -->" in text
    assert "<!-- precision -->\n## Half\n<!-- /precision -->" in text
    assert page([ROW], text) == text
    assert line(ROW) == "net; batch 8: forward 10.0 ms, soft 2.50, double 5.00, ascent 14.00, 2.40x eager"
