"""Tables of means, and the words that are made of paired differences."""

from __future__ import annotations

import csv
import io

import pytest

from benchmarks.evidence.baselines import ours_of, standard, summary, theirs_of
from benchmarks.evidence.tables import AHEAD, BEHIND, LEVEL, as_csv, best_of, cell, markdown, means, verdict
from fxpullback.export.evaluate.intervals import Mean, mean_of
from tests.benchmarks.evidence.reports import report

GP, SHARE = "grid pointing", "infidelity, share"
KNOWN = report(
    {
        (GP, "contribution"): [0.6, 0.7, 0.8],
        (GP, "gradient"): [0.3, 0.4, 0.5],
        (GP, "noise"): [0.9, 0.9, 0.9],
        (SHARE, "contribution"): [0.5, 0.6, 0.7],
        (SHARE, "gradient"): [0.4, 0.5, 0.65],
    },
    controls=("noise",),
)


def column(name: str):  # type: ignore[no-untyped-def]
    return next(column for column in KNOWN.columns if column.name == name)


def test_the_best_of_a_column_by_its_own_direction() -> None:
    assert best_of(KNOWN, column(GP), ["contribution", "gradient"]) == "contribution"
    assert best_of(KNOWN, column(SHARE), ["contribution", "gradient"]) == "gradient"
    assert best_of(KNOWN, column("predicted change"), ["contribution"]) is None


def test_a_verdict_takes_pictures_in_pairs() -> None:
    one = verdict(KNOWN, column(GP), ["contribution"], ["gradient"])
    assert one is not None
    assert one.word == AHEAD
    assert one.gap.mean == pytest.approx(0.3)
    assert one.gap.low == pytest.approx(0.3)
    other = verdict(KNOWN, column(SHARE), ["contribution"], ["gradient"])
    assert other is not None
    assert other.gap.mean == pytest.approx(-0.25 / 3)
    assert other.word == BEHIND
    assert other.gap.low < other.gap.mean < other.gap.high < 0


def test_what_swings_is_level() -> None:
    swings = report({(GP, "contribution"): [0.1, 0.9, 0.5], (GP, "gradient"): [0.9, 0.1, 0.45]})
    one = verdict(swings, column(GP), ["contribution"], ["gradient"])
    assert one is not None
    assert one.word == LEVEL


def test_who_is_ours_and_who_is_not() -> None:
    assert ours_of(KNOWN) == ["contribution"]
    assert theirs_of(KNOWN) == ["gradient"]


def test_a_summary_counts_its_cells() -> None:
    text = summary({"net": KNOWN})
    assert "**ahead**: contribution to gradient, .30 [.30, .30]" in text
    assert "Of 2 cells ours is ahead in 1, level in 0, behind in 1." in text
    assert "| net | 1 of 2 | infidelity: gradient |" in standard({"net": KNOWN})


def test_means_are_bold_where_best_and_controls_never_are() -> None:
    text = means(KNOWN, {GP: "GP", SHARE: "infidelity"})
    assert "|  | infidelity ↓ | GP ↑ |" in text or "|  | GP ↑ | infidelity ↓ |" in text
    assert "**.70** ± .25" in text
    assert "| noise | " in text
    assert "**.90**" not in text


def test_cells() -> None:
    assert cell(mean_of([])) == ""
    assert cell(Mean(1, 0.5, 0.5, 0.5), best=True) == "**.50**"
    assert cell(Mean(3, 0.5, 0.4, 0.6)) == ".50 ± .10"
    assert markdown(["", "a"], [["x", "1"]]) == "|  | a |\n| --- | --: |\n| x | 1 |\n"


def test_csv_holds_every_mean() -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv({"net": KNOWN}))))
    assert len(lines) == 5
    found = {(line["column"], line["method"]): float(line["mean"]) for line in lines}
    assert found[GP, "contribution"] == pytest.approx(0.7)
    assert {line["count"] for line in lines} == {"3"}
