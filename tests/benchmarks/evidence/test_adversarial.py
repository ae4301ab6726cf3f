"""Attacked pictures: the attacks, what files hold of them, how maps are compared, and one real run."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.evidence.adversarial import Chosen, chosen, main
from benchmarks.evidence.adversarial_attacks import (
    ATTACKS,
    CLEAN,
    FGSM_2,
    FGSM_8,
    NOISE,
    PGD_2,
    PGD_8,
    STEP,
    Attacked,
    attacked,
    near,
    rounded,
    slope,
)
from benchmarks.evidence.adversarial_maps import FIRST, TRUE, alike, overlap
from benchmarks.evidence.adversarial_page import FELL, HELD, ROSE, Found, best, direction, moved, report_of, success
from benchmarks.networks import of_demo
from fxpullback.export.evaluate.cases import LABELS, Pictures, find
from fxpullback.export.evaluate.intervals import Mean
from fxpullback.export.evaluate.rows import Row
from fxpullback.export.pictures.preprocessing import Preprocessing


class Linear(nn.Module):
    """Two classes; the logits are the sum of the pixels and nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x.flatten(1).sum(1)
        return torch.stack([total, torch.zeros_like(total)], 1)


def grid(count: int) -> torch.Tensor:
    """Pictures of 8 bits."""
    return torch.randint(0, 256, (count, 3, 4, 4)) / 127.5 - 1


def test_the_gradient_of_the_cross_entropy() -> None:
    x = torch.full((1, 3, 1, 1), 0.1)
    found = slope(Linear(), x, torch.tensor([0]))
    wanted = 1 / (1 + math.exp(-0.3)) - 1  # softmax minus one-hot, times a slope of 1
    torch.testing.assert_close(found, torch.full_like(x, wanted))


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_stay_in_the_ball_and_the_range(name: str) -> None:
    x = grid(4)
    eps = int(name.split()[1]) * STEP
    made = ATTACKS[name](Linear(), x, torch.zeros(4, dtype=torch.long), torch.Generator().manual_seed(0))
    assert (made - x).abs().max() <= eps + 1e-6
    assert made.abs().max() <= 1
    assert (rounded(made) - x).abs().max() <= eps + 1e-6  # ends of the ball are pictures of 8 bits


def test_a_linear_network_is_attacked_to_the_end_of_the_ball() -> None:
    x = grid(2) * 0.5
    classes, rng = torch.tensor([0, 1]), torch.Generator().manual_seed(0)
    down, up = x[:1] - 2 * STEP, x[1:] + 2 * STEP  # class 0 is attacked by less light, class 1 by more
    for name in (FGSM_2, PGD_2):
        torch.testing.assert_close(ATTACKS[name](Linear(), x, classes, rng), torch.cat([down, up]))
    assert near(torch.tensor([0.5, -3.0]), torch.tensor([0.0, -0.9]), 0.2).tolist() == pytest.approx([0.2, -1.0])


def test_what_is_in_the_files(tmp_path: Path) -> None:
    x = torch.cat([torch.full((1, 3, 4, 4), 1 / 127.5), torch.full((1, 3, 4, 4), 12 / 127.5)]) - 1 / 255 + 1 / 255
    x = rounded(x)
    made = attacked(Linear(), FGSM_8, x, (0, 0), ("a.png", "b.png"), tmp_path / "fgsm", 0)
    assert (made.before, made.after) == ((1, 0), (1, 0))  # the darker one turns
    assert made.farthest == pytest.approx(8, abs=1e-3)
    with (tmp_path / "fgsm" / LABELS).open(newline="") as file:
        assert list(csv.reader(file)) == [["file", "class_index"], ["a.png", "0"], ["b.png", "0"]]
    held = Pictures(find(tmp_path / "fgsm", None, 2), Preprocessing.plain((3, 4, 4)))
    torch.testing.assert_close(torch.from_numpy(held[1]), x[1] - 8 * STEP, atol=1e-6, rtol=0)
    half = torch.full((1, 3, 4, 4), 0.0)  # 127.5: between two steps
    clean = attacked(Linear(), CLEAN, half + 1e-4, (0,), ("a.png",), tmp_path / "clean", 0)
    assert (clean.before, clean.after, clean.farthest) == ((0,), (0,), 0)


def test_rounding_may_undo_an_attack(tmp_path: Path) -> None:
    slight = torch.full((1, 3, 4, 4), 1 / 255 - 1e-4)  # 128 when rounded
    model = Linear()
    shifted = nn.Sequential(_Shift(-1 / 255), model)
    made = attacked(shifted, CLEAN, slight, (1,), ("a.png",), tmp_path, 0)
    assert (made.before, made.after) == ((1,), (0,))


class _Shift(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.by + 1e-6


def test_overlap_of_the_strongest_places() -> None:
    rng = np.random.default_rng(0)
    one, other = np.arange(10.0), np.array([0, 1, 2, 3, 4, 5, 6, 9, 8, 7.0])
    assert overlap(one, other, rng) == 0.5  # 8 and 9 against 7 and 8
    assert overlap(one, one, rng) == 1
    flat = np.zeros(1000)
    assert overlap(flat, flat, rng) == pytest.approx(0.2, abs=0.1)  # no agreement where nothing is told


def test_alike() -> None:
    one = np.array([[1.0, 2.0], [3.0, 4.0]])
    found = alike(one, one**3, np.random.default_rng(0))
    assert found["spearman"] == pytest.approx(1)
    assert found["cosine"] == pytest.approx((1 + 16 + 81 + 256) / math.sqrt(30 * (1 + 64 + 729 + 4096)))
    assert alike(one, -one, np.random.default_rng(0))["spearman"] == pytest.approx(-1)


def test_words_come_from_numbers() -> None:
    assert [direction(Mean(3, 0, low, high)) for low, high in ((0.1, 1), (-1, 1), (-1, -0.1))] == [ROSE, HELD, FELL]
    held = {
        ("infidelity, share, clean", "contribution"): [0.2, 0.3, 0.2],
        (f"infidelity, share, {FGSM_8}", "contribution"): [0.5, 0.7, 0.6],
        ("infidelity, share, clean", "gradient"): [0.8, 0.9, 0.8],
        (f"infidelity, share, {FGSM_8}", "gradient"): [0.8, 0.9, 0.8],
        (f"spearman, {PGD_8}, {TRUE}", "contribution"): [0.1, 0.2, 0.1],
        (f"spearman, {PGD_8}, {TRUE}", "gradient"): [0.5, 0.5, 0.6],
        (f"spearman, {PGD_8}, {FIRST}", "gradient"): [0.5],
    }
    report = report_of([Row(c, m, str(n), v, "") for (c, m), values in held.items() for n, v in enumerate(values)], 3)
    ahead, behind = best(report, "infidelity, share, clean"), best(report, f"spearman, {PGD_8}, {TRUE}")
    assert ahead is not None
    assert behind is not None
    assert (ahead.word, behind.word) == ("ahead", "behind")
    table = moved({"n": report})
    assert "| contribution | 0 / 1 / 0 |" in table  # more infidelity is worse
    assert "| gradient | 0 / 0 / 1 |" in table
    made = {CLEAN: Attacked(CLEAN, Path(), (0, 1), (0, 1), 0.0), PGD_8: Attacked(PGD_8, Path(), (2, 2), (2, 1), 8.0)}
    assert "| 0 / 0 of 2, 0 | 2 / 1 of 2, 8 |" in success({"n": Found(report, made, (0, 1))})


def test_pictures_that_are_wrong_already_are_not_attacked(tmp_path: Path) -> None:
    network = of_demo(tmp_path / "demo")
    found: Chosen = chosen(network, tmp_path, 3)
    assert len(found.names) == 3
    with torch.no_grad():
        assert tuple(network.model(found.x).argmax(1).tolist()) == found.classes
    wrong = nn.Sequential(network.model, nn.Softmin(1)).eval()
    turned = type(network)("turned", wrong, network.preprocessing, network.folder)
    with pytest.raises(SystemExit, match="nothing to attack"):
        chosen(turned, tmp_path, 3)


def test_a_run(tmp_path: Path) -> None:
    options = ["demo", "--count", "1", "--build", str(tmp_path), "-o", str(tmp_path / "results")]
    main(options)
    text = (tmp_path / "results" / "adversarial.md").read_text()
    rows = (tmp_path / "adversarial" / "demo" / "maps.jsonl").read_text()
    assert "## demo" in text
    assert NOISE in text
    assert "nan" not in text.replace("explanation", "")
    main(options)
    assert (tmp_path / "adversarial" / "demo" / "maps.jsonl").read_text() == rows
    assert (tmp_path / "results" / "adversarial.md").read_text() == text
