"""Faithfulness against values worked out by hand, and against Quantus and Captum where they compute the same."""

from __future__ import annotations

import numpy as np
import pytest

from fxpullback.export.evaluate import faithfulness as faith
from fxpullback.export.evaluate import insertion
from fxpullback.export.evaluate.patches import Array, Real, grid_of, means, ranked, sums, without

PICTURE = np.array([[[1.0, 2.0], [3.0, 4.0]]], np.float32)
BLANK = np.zeros_like(PICTURE)
WEIGHT = np.array([[0.5, -1.0], [2.0, 1.0]])


def score(x: Array) -> Real:
    return np.asarray((x[:, 0] * WEIGHT).sum((1, 2)), dtype=np.float64)


def test_drops_are_weight_times_pixel() -> None:
    parts = grid_of(2, 2, 2)
    fallen = faith.drops(score, PICTURE, BLANK, parts, faith.single(parts))
    np.testing.assert_allclose(fallen, [0.5, -2, 6, 4])
    pairs = np.array([[True, True, False, False], [False, False, True, True]])
    np.testing.assert_allclose(faith.drops(score, PICTURE, BLANK, parts, pairs), [-1.5, 10])


def test_occlusion_of_the_right_map_is_one_and_of_its_opposite_minus_one() -> None:
    parts = grid_of(2, 2, 2)
    fallen = np.array([0.5, -2, 6, 4])
    right = WEIGHT * PICTURE[0]
    assert faith.occlusion(right, parts, fallen) == pytest.approx(1)
    assert faith.occlusion(-right, parts, fallen) == pytest.approx(-1)
    assert faith.occlusion(np.ones((2, 2)), parts, fallen) == 0


def test_faithfulness_correlation_by_hand() -> None:
    parts, flat = grid_of(2, 2, 2), np.array([[1.0, 0.0], [0.0, 0.0]])
    sets = np.array([[True, False, True, False], [False, True, True, False], [True, True, False, False]])
    # given to the sets: 1, 0, 1; fallen: 6.5, 4, -1.5
    fallen = np.array([6.5, 4.0, -1.5])
    wanted = np.corrcoef([1, 0, 1], fallen)[0, 1]
    assert faith.faithfulness_correlation(flat, parts, sets, fallen) == pytest.approx(wanted)


def test_random_sets_have_the_size_and_differ() -> None:
    sets = faith.random_sets(np.random.default_rng(0), 10, 3, 50)
    assert (sets.sum(1) == 3).all()
    assert len(np.unique(sets, axis=0)) > 20


def test_faithfulness_estimate_by_hand() -> None:
    # By rank: 4, 3, 2, 1 in the map; the drops of those pixels: 4, 6, -2, 0.5
    wanted = np.corrcoef([4, 3, 2, 1], [4, 6, -2, 0.5])[0, 1]
    flat = PICTURE[0].astype(np.float64)
    assert faith.faithfulness_estimate(score, PICTURE, BLANK, flat, 4) == pytest.approx(wanted)


def test_monotonicity_by_hand() -> None:
    flat = PICTURE[0].astype(np.float64)
    # They come from the least: +0.5, -2, +6, +4: three of four steps do not lower the score.
    assert faith.monotonicity(score, PICTURE, BLANK, flat, 4) == pytest.approx(3 / 4)


def test_monotonicity_correlation_ranks_by_what_matters() -> None:
    rng = np.random.default_rng(0)
    weight = np.array([[1.0, 8.0], [64.0, 512.0]])

    def heavy(x: Array) -> Real:
        return np.asarray((x[:, 0] * weight).sum((1, 2)), dtype=np.float64)

    assert faith.monotonicity_correlation(heavy, PICTURE, weight, 4, 32, rng) == pytest.approx(1)
    assert faith.monotonicity_correlation(heavy, PICTURE, 1 / weight, 4, 32, rng) == pytest.approx(-1)


def test_infidelity_has_the_optimal_scale() -> None:
    a, b = np.array([1.0, 2.0, -1.0]), np.array([3.0, 5.0, -2.0])
    beta = (a @ b) / (a @ a)
    missed, share = faith.infidelity(a, b)
    assert missed == pytest.approx(((beta * a - b) ** 2).mean())
    assert share == pytest.approx(missed / (b @ b / 3))
    assert faith.infidelity(7 * b, b) == pytest.approx((0, 0), abs=1e-12)
    assert faith.infidelity(0 * b, b) == pytest.approx(((b @ b) / 3, 1))


def test_predicted_changes_of_slopes_and_of_shares() -> None:
    masks = np.array([[[True, False], [False, True]]])
    changes = PICTURE - without(PICTURE, BLANK, masks)
    slope = faith.predicted_changes(WEIGHT[None].astype(np.float32), WEIGHT, changes, masks, slope=True)
    np.testing.assert_allclose(slope, [0.5 + 4])
    share = faith.predicted_changes(PICTURE[0], WEIGHT, changes, masks, slope=False)
    np.testing.assert_allclose(share, [0.5 + 1])


def test_squares_are_squares_inside_the_picture() -> None:
    masks = faith.random_squares(np.random.default_rng(0), 20, 30, 40, 0.1, 0.5)
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert len(rows) == len(columns)
        assert 2 <= len(rows) <= 10
        assert mask.sum() == len(rows) ** 2


def test_insertion_and_deletion_by_hand() -> None:
    parts = grid_of(2, 2, 2)
    inserted, deleted = insertion.curves(score, PICTURE, BLANK, PICTURE[0].astype(np.float64), parts, 4)
    np.testing.assert_allclose(inserted, [0, 4, 10, 8, 8.5])
    np.testing.assert_allclose(deleted, [8.5, 4.5, -1.5, 0.5, 0])
    assert insertion.area(inserted) == pytest.approx((0 / 2 + 4 + 10 + 8 + 8.5 / 2) / 4)


def test_fewer_steps_take_several_parts_at_once() -> None:
    stages = insertion.stages(np.array([2, 0, 3, 1]), 2)
    np.testing.assert_array_equal(stages, [[0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]])


def test_parts() -> None:
    assert grid_of(4, 6, 2).tolist() == [[0, 0, 0, 1, 1, 1]] * 2 + [[2, 2, 2, 3, 3, 3]] * 2
    assert np.bincount(grid_of(32, 32, 14).ravel()).min() >= 4
    assert ranked(np.array([[1.0, 4.0], [3.0, 2.0]]), 2).tolist() == [[1, 0], [0, 1]]
    np.testing.assert_allclose(sums(WEIGHT, np.array([[0, 0], [1, 1]])), [-0.5, 3])
    np.testing.assert_allclose(means(WEIGHT, np.array([[0, 0], [1, 1]])), [-0.25, 1.5])
