"""Pullback ascent judged: the steps are those of the program, and every measure is what it says."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import fxpullback
from benchmarks.evidence.ascent import bench_of, main, moves, rows_of, starts
from benchmarks.evidence.ascent_judges import coherence, distances, features, perceptual
from benchmarks.evidence.ascent_moves import DRAWN, OWN, RUNNER_UP, climbed, slope_of, targets, to_length
from benchmarks.evidence.ascent_page import (
    GRADIENT,
    GRADIENT_FAR,
    OTHERS,
    PULLBACK,
    RANDOM,
    UNMOVED,
    called,
    gap,
    grid_of,
    page,
    picture,
    report_of,
)
from benchmarks.networks import Network
from fxpullback import Ascent
from fxpullback.export import Session, to_onnx
from fxpullback.export.evaluate.cases import LABELS
from fxpullback.export.evaluate.rows import Row, Rows
from fxpullback.export.pictures.preprocessing import Preprocessing

SIDE = 176
"""MS-SSIM halves a picture four times and needs more than 160."""


def small(seed: int) -> nn.Module:
    """A network of two convolutions."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, 4), nn.ReLU(), nn.Conv2d(6, 8, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 5),
    ).eval().requires_grad_(False)  # fmt: skip


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[Network]:
    """Two networks, and two pictures that the first classifies correctly because the labels are its own."""
    folder = tmp_path_factory.mktemp("drawn")
    made = [small(seed) for seed in (0, 1)]
    lines = ["file,class_index"]
    for number, values in enumerate(np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)):
        Image.fromarray(values).save(folder / f"{number}.png")
        x = torch.from_numpy(values).permute(2, 0, 1)[None] / 127.5 - 1
        lines.append(f"{number}.png,{int(made[0](x).argmax())}")
    (folder / LABELS).write_text("\n".join(lines) + "\n")
    plain = Preprocessing.plain((3, SIDE, SIDE))
    return [Network(name, model, plain, folder) for name, model in zip("ab", made, strict=True)]


def test_steps_are_those_of_the_compiled_program(tmp_path: Path) -> None:
    x, model = torch.rand(2, 3, SIDE, SIDE) * 2 - 1, small(0)
    classes = np.array([1, 3])
    to_onnx(fxpullback.compile(model, (x,)), tmp_path / "soft.onnx", certify=False)
    to_onnx(fxpullback.compile(model, (x,), program=Ascent(2, 20.0)), tmp_path / "ascent.onnx", certify=False)
    way = climbed(slope_of(Session(tmp_path / "soft.onnx"), classes), x, 20.0, 2)
    whole = Session(tmp_path / "ascent.onnx")(x.numpy(), classes)
    assert whole.counterfactual is not None
    torch.testing.assert_close(way[-1], torch.from_numpy(whole.counterfactual), atol=1e-4, rtol=0)
    torch.testing.assert_close(way[-1] - x, torch.from_numpy(whole.pullback), atol=1e-4, rtol=0)
    assert len(way) == 2


def test_a_step_is_alpha_long_before_it_is_clipped() -> None:
    x = torch.zeros(1, 1, 2, 2)
    (moved,) = climbed(lambda at: torch.tensor([[[[3.0, 0.0], [0.0, 4.0]]]]), x, 0.5, 1)
    torch.testing.assert_close(moved, torch.tensor([[[[0.3, 0.0], [0.0, 0.4]]]]))
    (far,) = climbed(lambda at: torch.tensor([[[[3.0, 0.0], [0.0, 4.0]]]]), x, 5.0, 1)
    assert far.max() == 1


def test_targets() -> None:
    logits = np.array([0.1, 3.0, 2.0, -1.0])
    drawn = {int(targets(logits, 1, np.random.default_rng(seed))[2]) for seed in range(20)}
    assert drawn == {0, 3}
    assert targets(logits, 1, np.random.default_rng(0))[:2].tolist() == [1, 2]
    assert targets(logits, 2, np.random.default_rng(0))[:2].tolist() == [2, 1]


def test_as_far_as_is_wanted() -> None:
    x, direction = torch.rand(3, 3, 8, 8) * 2 - 1, torch.randn(3, 3, 8, 8)
    wanted = torch.tensor([0.5, 3.0, 8.0]).view(3, 1, 1, 1)
    moved = to_length(x, direction, wanted)
    torch.testing.assert_close((moved - x).flatten(1).norm(dim=1), wanted.flatten(), atol=1e-4, rtol=0)
    assert moved.abs().max() <= 1
    assert ((moved - x) * direction >= 0).all()
    corner = to_length(torch.ones(1, 1, 1, 2), torch.tensor([[[[1.0, -1.0]]]]), torch.full((1, 1, 1, 1), 9.0))
    assert corner.flatten().tolist() == [1, -1]  # as far as it can


def logs(*rows: list[float]) -> Tensor:
    """Log-probabilities of probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log()


def test_what_judges_make_of_pictures() -> None:
    classes = torch.tensor([0, 1])
    before = {"own": logs([0.6, 0.4], [0.6, 0.4]), "j": logs([0.7, 0.3], [0.7, 0.3]), "k": logs([0.2, 0.8], [0.2, 0.8])}
    after = {"own": logs([0.8, 0.2], [0.1, 0.9]), "j": logs([0.6, 0.4], [0.4, 0.6]), "k": logs([0.4, 0.6], [0.1, 0.9])}
    found = coherence(before, after, classes, "own")
    assert found["top"] == [0.5, 1.0]
    assert found["flip"] == [0.0, 1.0]  # k had another first and keeps it; j had another first and turns
    assert found["up"] == [0.5, 1.0]
    assert found["gain"] == pytest.approx(
        [(math.log(0.6 / 0.7) + math.log(2)) / 2, (math.log(2) + math.log(9 / 8)) / 2]
    )
    assert found["specific"] == pytest.approx(
        [(math.log(0.6 / 0.4) + math.log(0.4 / 0.1)) / 2, (math.log(0.6 / 0.4) + math.log(0.9 / 0.6)) / 2]
    )
    assert found["self top"] == [1.0, 1.0]
    assert found["self gain"] == pytest.approx([math.log(8 / 6), math.log(9 / 4)])


def test_nobody_to_flip_is_no_number() -> None:
    table = {"own": logs([0.6, 0.4], [0.6, 0.4]), "j": logs([0.7, 0.3], [0.3, 0.7])}
    assert all(math.isnan(value) for value in coherence(table, table, torch.tensor([0, 1]), "own")["flip"])


def test_the_network_that_is_explained_is_no_judge() -> None:
    only = {"own": logs([0.6, 0.4])}
    with pytest.raises(ValueError, match="nobody but own"):
        coherence(only, only, torch.tensor([0]), "own")
    with pytest.raises(SystemExit, match="nobody is there to judge it"):
        main(["demo"])


def test_distances() -> None:
    x = torch.rand(2, 3, SIDE, SIDE) - 0.5
    moved = x.clone()
    moved[1] += 0.25
    found = distances(x, moved)
    assert found["L2"] == pytest.approx([0, 0.25 * math.sqrt(3 * SIDE * SIDE)], rel=1e-4)
    assert found["RMS"] == pytest.approx([0, 0.25], rel=1e-4)
    assert found["MS-SSIM"][0] == pytest.approx(1)
    assert found["MS-SSIM"][1] < 0.999


def test_perceptual_distance_by_hand() -> None:
    one = [torch.tensor([[[[1.0, 0.6]], [[0.0, 0.8]]]])]  # two channels, two places
    other = [torch.tensor([[[[0.0, 0.6]], [[1.0, 0.8]]]])]
    assert perceptual(one, other).tolist() == [1.0]  # 2 at one place, 0 at the other
    assert perceptual(one * 2, other * 2).tolist() == [2.0]


def test_the_ruler_is_squeezenet(zoo: ModuleType) -> None:
    model = zoo.load("squeezenet1_0").model
    x, _, _ = zoo.images("squeezenet1_0")
    found = features(model, x[:2])
    assert [one.shape[1] for one in found] == [96, 128, 256, 384, 384, 512, 512]
    for one in found:
        norms = one.norm(dim=1)
        assert ((norms - 1).abs() < 1e-4).logical_or(norms == 0).all()
    assert perceptual(found, found).tolist() == [0, 0]
    near, far = (features(model, x[:2] + size * torch.randn_like(x[:2])) for size in (0.01, 0.2))
    assert (perceptual(found, near) < perceptual(found, far)).all()


def test_a_run_goes_on_where_it_was(networks: list[Network], tmp_path: Path) -> None:
    bench = bench_of(networks[0], networks, tmp_path)
    assert (set(bench.models), bench.ruler) == ({"a", "b"}, None)
    start = next(starts(networks[0], bench.pullback, tmp_path))
    made = dict(moves(bench, start))
    assert next(iter(made)) == UNMOVED
    lengths = {name: (moved - start.x).flatten(1).norm(dim=1) for name, moved in made.items()}
    for name in (GRADIENT_FAR, RANDOM):
        torch.testing.assert_close(lengths[name], lengths[PULLBACK], atol=1e-2, rtol=1e-3)
    kept = Rows(tmp_path / "rows.jsonl")
    rows = rows_of(bench, start, kept, swept=False)
    before = (tmp_path / "rows.jsonl").read_text()
    assert rows_of(bench, start, Rows(tmp_path / "rows.jsonl"), swept=False) == rows
    assert (tmp_path / "rows.jsonl").read_text() == before
    assert {row.method for row in rows} == set(made)
    assert {row.column.rsplit(", ", 1)[1] for row in rows} == {OWN, RUNNER_UP, DRAWN}


def rows(values: dict[str, list[float]], method: str) -> list[Row]:
    """Rows of one method by column; pictures are numbered."""
    return [Row(name, method, str(place), v, "") for name, held in values.items() for place, v in enumerate(held)]


def test_page() -> None:
    def of(gains: list[float], like: list[float]) -> dict[str, list[float]]:
        found = {
            f"{m}, {kind}": gains
            for m in ("top", "flip", "up", "gain", "specific", "self top")
            for kind in (OWN, DRAWN)
        }
        found |= {f"{m}, {DRAWN}": like for m in ("L2", "MS-SSIM")}
        return found | {f"specific, {RUNNER_UP}": [v + 1 for v in gains]}

    held = rows(of([0, 0, 0], [1, 1, 1]), UNMOVED) + rows(of([1, 1.1, 0.9], [0.5, 0.6, 0.5]), PULLBACK)
    held += rows(of([0.2, 0.1, 0.3], [0.8, 0.9, 0.8]), GRADIENT) + rows(
        of([0.2, 0.1, 0.2], [0.4, 0.5, 0.4]), GRADIENT_FAR
    )
    held += rows(of([0, 0, 0.1], [0.5, 0.5, 0.5]), RANDOM) + rows(
        of([0.5, 0.5, 0.5], [0.7, 0.7, 0.7]), called(PULLBACK, 20, 2)
    )
    held += rows(of([0.1, 0.1, 0.1], [0.9, 0.9, 0.9]), called(GRADIENT, 20, 2))
    report = report_of(held, 3)
    assert report.controls == (UNMOVED, RANDOM)
    assert report.values(f"specific, {OTHERS}", PULLBACK) == pytest.approx({"0": 1.5, "1": 1.6, "2": 1.4})
    assert grid_of(report) == ([20.0], [2, 5])
    ahead, behind = gap(report, "specific", OTHERS, GRADIENT), gap(report, "MS-SSIM", OTHERS, GRADIENT)
    assert ahead is not None
    assert behind is not None
    assert (ahead.word, behind.word) == ("ahead", "behind")
    assert ahead.gap.mean == pytest.approx(0.8)
    text = page({"a": report}, {"a": report})
    assert "specific gain ahead on 1, level on 0, behind on 0" in text
    assert "Likeness to the picture (MS-SSIM): ahead on 0, level on 0, behind on 1" in text
    assert "largest at alpha 20, K 5 (1.50), the default has 1.50" in text
    assert "<svg" in picture({"a": report}, {"a": report})
