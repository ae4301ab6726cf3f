"""Robustness, localisation, sanity, similarity, enlargement and intervals, on cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fxpullback.export.evaluate import localisation, robustness, sanity
from fxpullback.export.evaluate.intervals import difference, mean_of, t_quantile
from fxpullback.export.evaluate.similarity import cosine, pearson, ranks, sameness, spearman
from fxpullback.export.pictures.smooth import enlarged, smoothed


def test_correlations_are_those_of_numpy_and_of_ranks() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50))
    assert pearson(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert spearman(a, np.exp(a)) == pytest.approx(1)
    assert ranks(np.array([3, 1, 3, 2])).tolist() == [2.5, 0, 2.5, 1]
    assert cosine(a, -2 * a) == pytest.approx(-1)


def test_a_constant_is_like_nothing_but_itself() -> None:
    flat, other = np.ones(5), np.arange(5)
    assert pearson(flat, other) == spearman(flat, other) == 0
    assert pearson(np.full(5, 0.1), other) == 0  # its mean rounds
    assert sameness(flat, flat) == 1
    assert sameness(flat, other) == 0
    assert sameness(other, -other) == pytest.approx(1)


def test_max_sensitivity_by_hand() -> None:
    picture = np.zeros((1, 2, 2), np.float32)
    rng = np.random.default_rng(0)
    drawn = np.random.default_rng(0).uniform(-0.1, 0.1, (5, 1, 2, 2))
    value = robustness.max_sensitivity(lambda x: x + 1, picture, picture + 1, 0.1, 5, rng)
    assert value == pytest.approx(np.sqrt((drawn**2).sum((1, 2, 3))).max() / 2, rel=1e-5)


def test_max_sensitivity_of_maps_that_hold_still_and_of_nothing() -> None:
    picture = np.zeros((1, 2, 2), np.float32)
    still = robustness.max_sensitivity(np.ones_like, picture, np.ones_like(picture), 0.1, 4, np.random.default_rng(0))
    gone = robustness.max_sensitivity(np.zeros_like, picture, 0 * picture, 0.1, 4, np.random.default_rng(0))
    assert still == gone == 0


def test_a_mosaic_holds_the_means_of_its_pictures() -> None:
    pictures = [np.full((3, 4, 6), value, np.float32) for value in (1, 2, 3, 4)]
    pictures[0][:, 0] = 9
    made, masks = localisation.mosaic(pictures)
    assert made.shape == (3, 4, 6)
    assert [float(made[0][mask].mean()) for mask in masks] == pytest.approx([3, 2, 3, 4])
    assert made[0, 0, 0] == pytest.approx(5)
    assert np.sum(masks, axis=0).tolist() == np.ones((4, 6), int).tolist()


def test_odd_sides_shrink_by_area() -> None:
    picture = np.arange(35, dtype=np.float32).reshape(1, 5, 7)
    small = localisation.shrunk(picture, 2, 3)
    assert small.mean() == pytest.approx(picture.mean())
    held = np.array([[0, 1, 2], [7, 8, 9], [14, 15, 16]])
    weight = np.outer([1, 1, 0.5], [1, 1, 1 / 3])
    assert small[0, 0, 0] == pytest.approx((held * weight).sum() / weight.sum())


def test_share_and_pointing_inside_a_mask() -> None:
    flat = np.array([[4.0, -9.0], [1.0, 3.0]])
    mask = np.array([[True, True], [False, False]])
    assert localisation.share_inside(flat, mask) == pytest.approx(4 / 8)
    assert localisation.points_inside(flat, mask) == 1
    assert localisation.points_inside(-flat, ~mask) == 0
    assert localisation.points_inside(np.ones((2, 2)), mask) == 0.5
    assert localisation.share_inside(-np.ones((2, 2)), mask) == 0


def test_sanity_tells_maps_that_do_not_change() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 3, 8, 8))
    assert sanity.random_logit(one, one) == sanity.random_logit(np.ones(4), np.ones(4)) == 1
    assert sanity.random_logit(one, -one) == pytest.approx(-1)
    assert abs(sanity.random_logit(one, other)) < 0.3
    assert {sanity.other_class(1, 3, rng) for _ in range(50)} == {0, 2}


def test_enlargement_is_that_of_torch() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    wanted = F.interpolate(torch.from_numpy(maps)[None], (11, 8), mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(enlarged(maps, 11, 8), wanted, atol=1e-6)
    assert enlarged(np.ones((1, 1, 1)), 3, 4).tolist() == np.ones((1, 3, 4)).tolist()


def test_blur_keeps_what_is_flat_and_spreads_a_point() -> None:
    np.testing.assert_allclose(smoothed(np.full((2, 6, 6), 3.0), 2), 3)
    point = np.zeros((31, 31))
    point[15, 15] = 1
    spread = smoothed(point, 2)
    assert spread.sum() == pytest.approx(1)
    assert spread[15, 15] / spread[15, 17] == pytest.approx(math.exp(0.5), rel=1e-6)


def test_quantiles_of_student() -> None:
    stats = pytest.importorskip("scipy.stats", reason="the table of t is compared with scipy's; pip install scipy")
    for freedom in (*range(1, 40), 99, 499):
        assert t_quantile(freedom) == pytest.approx(float(stats.t.ppf(0.975, freedom)), abs=2e-4)


def test_means_and_intervals() -> None:
    mean = mean_of([1.0, 2.0, 3.0])
    assert (mean.count, mean.mean) == (3, 2)
    assert mean.high - 2 == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert math.isnan(mean_of([]).mean)
    assert math.isnan(mean_of([1.0]).low)
    assert mean_of([1.0] * 10, hits=True).low == pytest.approx(0.7225, abs=1e-3)
    assert mean_of([1.0] * 10).low == 1


def test_differences_pair_the_pictures() -> None:
    gap = difference({"a": 1.0, "b": 5.0, "c": 0.0}, {"a": 0.5, "b": 4.5, "d": 9.0})
    assert (gap.count, gap.mean, gap.low, gap.high) == (2, 0.5, 0.5, 0.5)
