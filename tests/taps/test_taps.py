"""Contributions: against hooks on the model itself, in every program, in the file, and where they cannot be had."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback import EXACT, REFERENCE, SEMANTIC, Ascent, Double, Pullback, Soft
from fxpullback.contract import metadata as md
from fxpullback.contract.contribution import Contributions
from fxpullback.contract.errors import TapError
from fxpullback.export import Session, to_onnx
from fxpullback.export.certify.recheck import recheck
from fxpullback.graph.ir import RULE, aten, calls
from fxpullback.taps import TapWarning
from fxpullback.taps.contribution import mean_map
from fxpullback.taps.spread import moving_matrix
from tests.helpers import assert_near, changed, draw
from tests.taps.nets import Vision, Windows, falling

X, U = draw(3, 3, 16, 16, seed=5), draw(3, 5, seed=6)


RULES = {"semantic": SEMANTIC, "reference": REFERENCE, "exact": EXACT}
PROGRAMS: dict[str, Any] = {"soft": Soft(), "double": Double(2.0), "ascent": Ascent(2, 1.0)}


@cache
def compiled(rules: str = "exact", program: str = "soft") -> Pullback:
    return fxpullback.compile(
        falling().double(),
        X[:2],
        rules=RULES[rules],
        program=PROGRAMS[program],
        target="cotangent",
        taps="auto",
        each_tap=True,
    )


def named(pb: Pullback, *arguments: Tensor) -> dict[str, Tensor]:
    return dict(zip(pb.output_names, pb(*arguments), strict=True))


def hooked(model: nn.Module, name: str, x: Tensor, u: Tensor) -> Tensor:
    """`sum over channels of value * gradient` at the output of a module, by a hook."""
    kept: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda _m, _i, output: kept.append(output))
    logits = model(x)
    handle.remove()
    (gradient,) = torch.autograd.grad((logits * u).sum(), kept[-1])
    return kept[-1].detach() * gradient


def test_with_exact_rules_a_tap_is_hires_cam() -> None:
    found = named(compiled(), X, U)
    for name in ("2", "3"):
        assert_near(found[f"contribution.{place_of(compiled(), name)}"], hooked(falling().double(), name, X, U).sum(1))


def place_of(pb: Pullback, module: str) -> str:
    assert pb.contributions is not None
    return next(place.name for place in pb.contributions.places if place.name.startswith(module))


def test_the_automatic_choice_is_the_last_value_at_the_two_coarsest_grids() -> None:
    about = compiled().contributions
    assert about is not None
    assert [place.grid for place in about.places] == [(8, 8), (4, 4)]
    assert about.grid == (8, 8)
    assert about.exact
    assert Contributions.from_dict(about.to_dict()) == about


def test_one_map_of_two_by_hand() -> None:
    found = named(compiled(), X, U)
    fine, coarse = (found[f"contribution.{place_of(compiled(), name)}"] for name in ("2", "3"))
    spread = torch.nn.functional.interpolate(coarse[:, None], size=(8, 8), mode="bilinear")[:, 0] / 4
    sizes = [one.abs().sum((1, 2), keepdim=True) for one in (fine, spread)]
    mean = (fine / sizes[0] + spread / sizes[1]) / (1 / sizes[0] + 1 / sizes[1])
    assert_near(found["contribution"], mean)
    parts = torch.stack([fine.sum((1, 2)), coarse.sum((1, 2))])
    total = found["contribution"].sum((1, 2))
    assert bool(((total >= parts.amin(0) - 1e-12) & (total <= parts.amax(0) + 1e-12)).all())


@pytest.mark.parametrize(("size", "wanted"), [(7, 14), (13, 27), (4, 4), (1, 5), (5, 7), (14, 4), (9, 2)])
def test_spreading_keeps_sums(size: int, wanted: int) -> None:
    matrix = moving_matrix(size, wanted)
    assert_near(matrix.sum(1), torch.ones(size, dtype=torch.float64))
    assert bool((matrix >= 0).all())


def test_grids_of_which_neither_is_the_finer() -> None:
    wide, high = draw(2, 12, 3, seed=1).abs(), draw(2, 4, 9, seed=2).abs()
    found = mean_map([wide, high], (12, 3))
    assert found.shape == (2, 12, 3)
    assert bool(torch.isfinite(found).all())
    parts = torch.stack([wide.sum((1, 2)), high.sum((1, 2))])
    total = found.sum((1, 2))
    assert bool(((total >= parts.amin(0) - 1e-9) & (total <= parts.amax(0) + 1e-9)).all())


def test_places_and_a_series_are_no_one_map() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.picture, self.series, self.head = nn.Conv2d(3, 4, 4, 4), nn.Conv1d(4, 4, 3, 1, 1), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.head(self.series(self.picture(x).mean(3)).mean(2))
            return result

    with pytest.raises(TapError, match=r"different numbers of axes.*picture \[4, 4\], series \[4\]"):
        fxpullback.compile(Both().eval(), torch.zeros(1, 3, 16, 16), rules=SEMANTIC, taps=("picture", "series"))


def test_a_map_of_zeros_has_no_weight() -> None:
    one = draw(2, 4, 4)
    assert_near(mean_map([one, torch.zeros(2, 2, 2, dtype=torch.float64)], (4, 4)), one)
    assert not mean_map([torch.zeros(1, 4, 4), torch.zeros(1, 2, 2)], (4, 4)).any()


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_certificate_covers_the_contribution(rules: str, program: str) -> None:
    pb = compiled(rules, program)
    certificate = pb.verify(seed=4)
    assert certificate.passed, str(certificate)
    assert len([c for c in certificate.checks if "contribution" in c.name]) == 6


def test_ascent_shows_the_picture_itself_and_double_its_second_pass() -> None:
    soft, ascent = (named(compiled("semantic", program), X, U) for program in ("soft", "ascent"))
    assert_near(ascent["contribution"], soft["contribution"])
    assert ascent["contribution"].shape == (3, 8, 8)
    double, first = named(compiled("semantic", "double"), X, U), soft["pullback"]
    moved = X + 2.0 * first / first.flatten(1).norm(dim=1)[:, None, None, None]
    assert_near(double["contribution"], named(compiled("semantic"), moved, U)["contribution"])


@pytest.mark.parametrize("fused", [True, False])
def test_a_transformer_is_tapped_behind_its_inner_blocks(fused: bool) -> None:
    model = Vision(front=1, back=2, fused=fused).double().eval()
    x = draw(2, 3, 12, 16)
    pb = fxpullback.compile(model, x, rules=EXACT, target="cotangent", taps="auto", each_tap=True)
    assert pb.contributions is not None
    assert [place.name for place in pb.contributions.places] == ["blocks.1", "blocks.2"]
    found = named(pb, x, U[:2])
    for name in ("blocks.1", "blocks.2"):
        wanted = hooked(model, name, x, U[:2]).sum(2)[:, 1:13].reshape(2, 3, 4)
        assert_near(found[f"contribution.{name}"], wanted)
    assert pb.verify().passed


def test_modules_by_name() -> None:
    x = draw(2, 3, 12, 16)
    model = Vision().double().eval()
    pb = fxpullback.compile(model, x, rules=EXACT, target="cotangent", taps=["blocks.0.attention", "patches"])
    assert pb.output_names == ("logits", "pullback", "contribution")
    both = fxpullback.compile(model, x, rules=EXACT, target="cotangent", taps="patches")
    assert_near(named(both, x, U[:2])["contribution"], hooked(model, "patches", x, U[:2]).sum(1))


def test_a_wrapped_network_is_tapped_by_its_own_names() -> None:
    wrapped = nn.Sequential(nn.Identity(), nn.Sequential(Vision(), nn.Identity())).eval()
    pb = fxpullback.compile(wrapped, torch.zeros(1, 3, 12, 16), rules=EXACT, taps="blocks.2")
    assert pb.contributions is not None
    assert [(place.name, place.operator) for place in pb.contributions.places] == [("blocks.2", "add_6")]


def test_shifted_windows_of_merged_patches() -> None:
    model, x = Windows().double().eval(), draw(2, 3, 16, 24)
    pb = fxpullback.compile(model, x, rules=EXACT, target="cotangent", taps="merge")
    assert_near(named(pb, x, U[:2])["contribution"], hooked(model, "merge", x, U[:2]).sum(3))


def test_a_sequence_has_a_map_of_tokens() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Flatten(), nn.Linear(56, 5)).double().eval()
    x = draw(2, 7, 6)
    pb = fxpullback.compile(model, x, rules=EXACT, target="cotangent", taps="auto")
    assert_near(named(pb, x, U[:2])["contribution"], hooked(model, "1", x, U[:2]).sum(2))


def test_a_network_without_a_grid_has_no_tap_and_says_so() -> None:
    with pytest.warns(TapWarning, match="no value of this network lies on a grid"):
        pb = fxpullback.compile(nn.Linear(4, 3).eval(), torch.zeros(1, 4), taps="auto")
    assert pb.output_names == ("logits", "pullback")
    assert pb.contributions is None


@pytest.mark.parametrize(
    ("taps", "said"),
    [
        ("blocks.9", r"no module of this name computes anything\. There are .*blocks"),
        ("norm3", "no module of this name"),
        ("norm1", r"there are blocks\.0\.norm1, blocks\.1\.norm1"),
        ("head", "lies on no grid"),
        ((), "give 'auto'"),
        (("auto", "patches"), "not both"),
    ],
)
def test_taps_that_cannot_be(taps: Any, said: str) -> None:
    with pytest.raises(TapError, match=said):
        fxpullback.compile(Vision().eval(), torch.zeros(1, 3, 12, 16), rules=SEMANTIC, taps=taps)


def test_a_tap_that_rules_hold_constant_says_so() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value, self.gate, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.head((self.value(x) * torch.sigmoid(self.gate(x))).mean((2, 3)))
            return result

    with pytest.raises(TapError, match=r"hold what it returns constant.* such as .*value"):
        fxpullback.compile(Gated().eval(), torch.zeros(1, 3, 4, 4), rules=SEMANTIC, taps="gate")


def test_each_tap_without_taps() -> None:
    with pytest.raises(TapError, match="there are no taps"):
        fxpullback.compile(falling(), torch.zeros(1, 3, 16, 16), each_tap=True)


def test_free_sizes_allow_one_tap() -> None:
    x = torch.zeros(1, 3, 16, 16)
    pb = fxpullback.compile(falling(), x, rules=SEMANTIC, free_size=True, taps="auto")
    assert pb.contributions is not None
    assert pb.contributions.grid == (None, None)
    assert pb.verify().passed
    assert pb(torch.zeros(2, 3, 24, 32), torch.tensor([0, 1]))[2].shape == (2, 6, 8)
    with pytest.raises(TapError, match="one grid"):
        fxpullback.compile(falling(), x, rules=SEMANTIC, free_size=True, taps=("1", "2"))


def test_products_that_cancel_are_measured_by_what_is_summed() -> None:
    """In front of an exact norm a place carries what eps leaves: a part in a million of its products."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.head = nn.Linear(6, 8), nn.LayerNorm(8, eps=1e-6), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.head(self.norm(self.first(x) * 30).mean(1))
            return result

    torch.manual_seed(0)
    model, x = Normed().double().eval(), draw(2, 7, 6)
    pb = fxpullback.compile(model, x, rules=EXACT, target="cotangent", taps="first")
    products = hooked(model, "first", x, U[:2])
    assert float(products.sum(2).abs().max()) < 1e-4 * float(products.abs().sum(2).max())
    certificate = pb.verify()
    assert certificate.passed, str(certificate)


def test_a_wrong_contribution_is_caught() -> None:
    pb = compiled("semantic")
    step = copy.deepcopy(pb.step)
    node = next(n for n in calls(step.graph) if n.meta.get(RULE) == "tap" and n.target is aten.mul.Tensor)
    changed(step, node, aten.mul.Tensor, 1.001)
    failed = {c.name for c in replace(pb, step=step).verify().checks if not c.passed}
    assert failed == {
        "contribution: graph against autograd at that node, float64",
        "contribution: graph against autograd before folding",
    }


@pytest.mark.parametrize("program", ["soft", "ascent"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_file_gives_what_the_graph_gives(tmp_path: Path, program: str, precision: str) -> None:
    pb = fxpullback.compile(
        falling(), X[:2].float(), rules=SEMANTIC, program=PROGRAMS[program], taps="auto", each_tap=True
    )
    session = Session(to_onnx(pb, tmp_path / "falling.onnx", precision=precision))
    found, target = session(X.float().numpy(), np.array([0, 1, 2])), torch.tensor([0, 1, 2])
    wanted = named(pb, X.float(), target)
    assert found.contribution is not None
    assert tuple(session.outputs) == pb.output_names
    tolerance = 1e-5 if precision == "fp32" else 0.05
    for name in pb.output_names:
        if name.startswith("contribution"):
            assert_near(torch.from_numpy(found[name]), wanted[name], tolerance)
    assert list(found.contributions) == [place.name for place in session.contributions.places]  # type: ignore[union-attr]
    assert session.metadata.contributions == pb.contributions
    certificate = recheck(session.path)
    assert certificate.passed, str(certificate)
    assert any("contribution" in check.name for check in certificate.checks)


def test_a_file_without_taps_says_so(tmp_path: Path) -> None:
    pb = fxpullback.compile(falling(), X[:2].float(), rules=SEMANTIC)
    session = Session(to_onnx(pb, tmp_path / "plain.onnx", certify=False))
    assert session.contributions is None
    assert session(X.float().numpy(), np.array([0, 1, 2])).contribution is None
    assert md.CONTRIBUTIONS not in session.metadata.raw
