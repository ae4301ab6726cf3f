"""The drift table: what it measures of a small network, and where it is put."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fxpullback
from benchmarks.precision import MARKERS, insert, measure, with_program, zoo
from fxpullback import Ascent
from tests.export.certify.test_half import network
from tests.helpers import draw


def test_lines_of_a_network() -> None:
    x, y = draw(4, 3, 16, 16, dtype=torch.float32), torch.tensor([0, 1, 2, 3])
    pb = fxpullback.compile(network(), (x[:1],))
    again = with_program(pb, Ascent(steps=2, alpha=1.0))
    assert again.output_names[2:] == ("counterfactual", "counterfactual_logits")
    direct = fxpullback.compile(network(), (x[:1],), program=again.program)
    assert all(torch.equal(a, b) for a, b in zip(again(x, y), direct(x, y), strict=True))
    scaled, plain, wide = measure(pb, "small", x, y)
    assert scaled.scale > plain.scale == wide.scale == 1
    assert 0.999 < scaled.cosine[0] <= scaled.cosine[1] <= 1 + 1e-12
    assert wide.error[0] > 3 * scaled.error[0] > 0
    assert scaled.error[0] >= scaled.error[1]
    assert scaled.flushed <= plain.flushed
    assert scaled.megabytes[0] < scaled.megabytes[1]
    assert scaled.agree == 4
    assert str(scaled).count("|") == 11


def test_the_section_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    assert not insert("new", path)
    path.write_text("# Results\n")
    assert not insert("new", path)
    path.write_text(f"# Results\n{MARKERS[0]}\nold\n{MARKERS[1]}\nmore\n")
    assert insert("new\n", path)
    assert path.read_text() == f"# Results\n{MARKERS[0]}\nnew\n{MARKERS[1]}\nmore\n"


def test_the_absent_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FXPULLBACK_SHARED", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="set FXPULLBACK_SHARED"):
        zoo()
