"""Sweeps and ablations: the best value, the default beside it, what a change does."""

from __future__ import annotations

import pytest

from benchmarks.evidence import ablation, temperatures
from benchmarks.evidence.ablation import Ablation, Change, places_in
from benchmarks.evidence.sweep import PANELS, Sweep, beside_best, chosen, page, picture, table
from benchmarks.evidence.tables import AHEAD, BEHIND, LEVEL
from benchmarks.evidence.variants import Variant
from fxpullback import SEMANTIC
from tests.benchmarks.evidence.reports import report

INFIDELITY, PREDICTED, OCC2, GP = (panel.column for panel in PANELS)
SWEEP = Sweep(
    report(
        {
            (INFIDELITY, "pullback"): [0.5, 0.5, 0.6],
            (INFIDELITY, "fixed 0.1 pullback"): [0.9, 0.8, 0.9],
            (INFIDELITY, "fixed 2 pullback"): [0.3, 0.3, 0.41],
            (GP, "contribution"): [0.7, 0.7, 0.8],
            (GP, "fixed 0.1 contribution"): [0.5, 0.6, 0.5],
            (GP, "fixed 2 contribution"): [0.6, 0.6, 0.5],
        }
    ),
    {"fixed": {0.1: "fixed 0.1", 2.0: "fixed 2"}, "calibrated": {0.9: None}},
)


def test_values_are_ranked_by_the_columns_direction() -> None:
    infidelity, pointing = PANELS[0], PANELS[3]
    assert SWEEP.ranked(infidelity, "fixed") == [2.0, 0.1]
    assert SWEEP.at(pointing, "fixed 2").mean == pytest.approx(1.7 / 3)
    assert SWEEP.ranked(pointing, "fixed") == [2.0, 0.1]
    assert SWEEP.chosen("calibrated") == 0.9


def test_the_default_beside_the_best() -> None:
    kind, value, one = SWEEP.best(PANELS[0])
    assert (kind, value) == ("fixed", 2.0)
    assert one is not None
    assert one.word == BEHIND
    assert one.gap.mean == pytest.approx(-(0.2 + 0.2 + 0.19) / 3)
    assert SWEEP.best(PANELS[3]) == ("calibrated", 0.9, None)
    assert "| net | fixed 2: default behind, " in beside_best({"net": SWEEP})
    assert "| the default |" in beside_best({"net": SWEEP})


def test_a_sweep_is_written() -> None:
    text = page("# About\n", {"net": SWEEP}, "sweep.svg", {})
    assert "The default is the best in 1 of 2 numbers, level with the best in 0, behind in 1." in text
    assert "| net | 2 | 0.9 |" in chosen({"net": SWEEP})
    assert text.count("**") == 2 * 4  # the best of each kind in each of two numbers
    assert "| 2 | **.34** ± " in table(SWEEP, {})
    drawn = picture({"net": SWEEP}, "T")
    assert drawn.startswith("<?xml")
    assert drawn == picture({"net": SWEEP}, "T")


def test_temperatures_are_those_that_are_said() -> None:
    fixed = temperatures.of_fixed(1.2).temperatures
    assert fixed["relu"] == fixed["gelu"] == 1.2
    assert fixed["max_pool"] == 0.6
    assert "attention" not in fixed
    assert temperatures.of_attention(0.2).temperatures == {"attention": 0.2}
    assert temperatures.of_attention(0.2).spread == SEMANTIC.with_spread().spread
    assert list(temperatures.places_of("calibrated").values()).count(None) == 1
    names = [variant.name for variant in temperatures.variants_of(("fixed", "calibrated"))]
    assert names[0] == "paper"
    assert "calibrated 0.9" not in names
    assert "fixed 0.9" in names


def test_every_rule_is_in_one_group_of_the_ablation() -> None:
    groups = [name for names in ablation.KEPT.values() for name in names]
    assert sorted(groups) == sorted(SEMANTIC.rule_names())


def test_changes_beside_the_default() -> None:
    changes = [Change("double", Variant("double")), Change("everything exact", None)]
    held = Ablation(
        report(
            {
                (INFIDELITY, "pullback"): [0.5, 0.5, 0.6],
                (INFIDELITY, "double pullback"): [0.4, 0.4, 0.51],
                (INFIDELITY, "gradient"): [0.9, 0.1, 0.6],
                (GP, "contribution"): [0.7, 0.7, 0.8],
                (GP, "double contribution"): [0.6, 0.6, 0.71],
                (GP, "HiResCAM"): [0.7, 0.7, 0.8],
            }
        ),
        changes,
    )
    double = held.cells(changes[0])
    assert [one.word for one in double.values()] == [AHEAD, BEHIND]
    assert [one.word for one in held.cells(changes[1]).values()] == [LEVEL, LEVEL]
    text = ablation.page({"net": held})
    assert "| double | 1 / 0 / 0, +.10 |  |  | 0 / 0 / 1, -.10 |" in text
    assert " ▲ |" in text
    assert " ▼ |" in text
    assert ablation.picture({"net": held}).startswith("<?xml")


def test_taps_of_which_each_is_asked_alone() -> None:
    assert places_in(["a"]) == {}
    assert places_in(["a", "b"]) == {"first tap alone": "a", "last tap alone": "b"}
    assert places_in(list("abcde"))["middle tap alone"] == "c"
