"""A probe finds a mark on edited images and nothing where there is none; areas and their errors have closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import mannwhitneyu, norm

from pipeline_lib.audit.estimate import Estimate
from pipeline_lib.config import BoxRegion, Evaluate, PartRegion, RateRule, Rebalance
from pipeline_lib.data.tables import write_table
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.evaluation.leakage import (
    FIGURES,
    _folds,
    area_interval,
    area_under_curve,
    cells_of,
    crop_of,
    cross_fit,
    measure_leakage,
    pool_areas,
)

CPU = torch.device("cpu")
STEPS = 60  # as many as small images need
TARGETS = [RateRule(where={"long_hair": value}, attribute="smiling", rate=0.5) for value in (True, False)]


def noise(count, side=12, seed=0):
    """Return images of one colour each with a little noise, uint8 (count, 3, side, side)."""
    random = np.random.default_rng(seed)
    colour, grain = random.integers(60, 180, (count, 3, 1, 1)), random.integers(-6, 7, (count, 3, side, side))
    return torch.from_numpy((colour + grain).astype(np.uint8))


def halves(count):
    return np.arange(count) % 2 == 0


def test_an_area_is_the_share_of_pairs_in_the_right_order():
    random = np.random.default_rng(0)
    scores, positive = random.integers(0, 12, 70).astype(float), random.random(70) < 0.4
    pairs = scores[positive][:, None] - scores[~positive][None]
    area = area_under_curve(scores, positive)
    assert area == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert area == pytest.approx(mannwhitneyu(scores[positive], scores[~positive]).statistic / pairs.size)
    assert area_under_curve(np.arange(6.0), np.arange(6) > 2) == 1


def hanley_mcneil(area, positives, negatives):
    """Return the variance of an area by Hanley and McNeil (1982), for exponentially distributed scores."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    pairs = (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    return (area * (1 - area) + pairs) / (positives * negatives)


@pytest.mark.parametrize("area", [0.0, 0.031, 0.5, 0.9, 1.0])
def test_limits_of_an_area_are_where_the_score_test_just_rejects(area):
    found = area_interval(area, 40, 40, 0.9)
    for limit in found[1:]:  # of as many positives as negatives Newcombe's variance is that of Hanley and McNeil
        assert abs(area - limit) == pytest.approx(norm.ppf(0.95) * hanley_mcneil(limit, 40, 40) ** 0.5, abs=1e-9)
    assert 0 <= found.low <= area <= found.high <= 1
    assert found.low < found.high
    mirrored = area_interval(1 - area, 40, 40, 0.9)
    assert (1 - mirrored.high, 1 - mirrored.low) == (pytest.approx(found.low), pytest.approx(found.high))


def test_perfect_separation_of_few_images_is_not_certain():
    found = area_interval(1.0, 20, 20, 0.95)
    assert (found.value, found.high) == (1, 1)
    assert 0.8 < found.low < 0.95
    assert found.low < area_interval(1.0, 200, 200, 0.95).low < 1


@pytest.mark.parametrize(("positives", "negatives"), [(20, 20), (20, 80), (120, 180)])
@pytest.mark.parametrize("apart", [0.0, 1.0, 2.5, 3.5])
def test_an_interval_of_an_area_covers_the_true_one(positives, negatives, apart):
    random = np.random.default_rng(1)
    positive = np.arange(positives + negatives) < positives
    true = norm.cdf(apart / 2**0.5)
    covered = []
    for _ in range(400):
        area = area_under_curve(random.normal(size=len(positive)) + apart * positive, positive)
        _, low, high = area_interval(area, positives, negatives, 0.95)
        covered.append(low <= true <= high)
    assert np.mean(covered) > 0.92


def test_pooled_areas_are_weighted_by_their_pairs():
    areas = {"a": Estimate(0.5, 0.4, 0.7), "b": Estimate(0.9, 0.7, 0.95)}
    below, above = np.hypot(0.75 * 0.1, 0.25 * 0.2), np.hypot(0.75 * 0.2, 0.25 * 0.05)
    assert pool_areas(areas, {"a": 300, "b": 100}) == pytest.approx((0.6, 0.6 - below, 0.6 + above))
    assert pool_areas({"a": areas["a"]}, {"a": 3}) == areas["a"]


def test_every_cell_is_spread_evenly_over_folds_that_the_seed_decides():
    strata = pd.Series(["a"] * 23 + ["b"] * 40)
    folds = _folds(strata, seed=0)
    for kind, sizes in (("a", (4, 5)), ("b", (8, 8))):
        counts = np.bincount(folds[strata == kind], minlength=5)
        assert (counts.min(), counts.max()) == sizes
    assert (folds == _folds(strata, seed=0)).all()
    assert (folds != _folds(strata, seed=1)).any()


@pytest.mark.slow
def test_a_mark_of_one_pixel_is_found():
    images, edited = noise(400), halves(400)
    images[edited, :, 5, 6] += 40
    area = area_under_curve(cross_fit(images, edited, np.full(400, "cell"), 0, CPU, STEPS), edited)
    assert area > 0.95


@pytest.mark.slow
def test_two_draws_of_one_distribution_are_not_told_apart():
    edited = halves(400)
    area = area_under_curve(cross_fit(noise(400), edited, np.full(400, "cell"), 0, CPU, STEPS), edited)
    assert area == pytest.approx(0.5, abs=4 * 0.029)  # sqrt of (n + 1) / (12 n1 n0)


@pytest.mark.slow
def test_the_cell_itself_is_no_help():
    # The cells differ in colour and in their share of edited images, and nothing else does.
    cells = np.where(np.arange(400) < 200, "a", "b")
    edited = np.where(cells == "a", np.arange(400) % 5 > 0, np.arange(400) % 5 == 0)
    images = noise(400) // 2
    images[cells == "a"] += 120
    scores = cross_fit(images, edited, cells, 0, CPU, STEPS)
    for cell in ("a", "b"):
        area = area_under_curve(scores[cells == cell], edited[cells == cell])
        assert area == pytest.approx(0.5, abs=4 * 0.051)  # of 40 and 160


@pytest.mark.slow
def test_the_seed_decides_the_scores():
    images, edited, cells = noise(60), halves(60), np.full(60, "cell")
    once, again, other = (cross_fit(images, edited, cells, seed, CPU, STEPS) for seed in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()


def test_the_crop_holds_the_region_and_a_margin(tmp_path):
    codes = np.zeros((64, 64), int)
    codes[40:50, 20:44] = 1
    write_table(tmp_path / "parts.parquet", "parts", pd.DataFrame(part_rows("a", codes, ["background", "mouth"])))
    mouth = PartRegion(grow=2 / 64, buffer=1 / 64)
    found = crop_of([mouth], tmp_path / "parts.parquet", 64)
    assert found == (slice(34, 56), slice(14, 50))
    box = BoxRegion(top=0.5, bottom=1, left=0, right=0.25)
    assert crop_of([box], tmp_path / "parts.parquet", 64) == (slice(29, 64), slice(0, 19))
    assert crop_of([mouth, box], tmp_path / "parts.parquet", 64) == (slice(29, 64), slice(0, 50))


def evaluate(mark):
    """Measure short-haired faces that smile, and few that have long hair."""
    count = 160
    pixels = noise(count, side=32).permute(0, 2, 3, 1).numpy()
    edited = halves(count)
    pixels[edited, 20, 16] += mark
    answers = pd.DataFrame({"long_hair": np.arange(count) < 12, "smiling": True})
    cells = cells_of(answers, answers, Rebalance(targets=TARGETS))
    crop = slice(12, 28), slice(6, 26)
    return measure_leakage(pixels, edited, cells, crop, Evaluate(leakage_steps=STEPS), 0, CPU).model_dump(mode="json")


@pytest.mark.slow
def test_a_mark_shows_in_the_cell_that_it_is_in_and_small_cells_are_named():
    found = evaluate(mark=40)
    (cell,) = found["cells"]
    assert cell == "not long_hair, smiling"
    figures = found["cells"][cell]
    assert (figures["edited"], figures["unedited"], figures["n_of_frechet_distance"]) == (74, 74, 37)
    assert figures["auc"]["value"] > 0.9
    assert found["pooled"]["auc"] == figures["auc"]
    assert found["left_out"]["long_hair, smiling"] == {"edited": 6, "unedited": 6}
    assert found["left_out"]["not long_hair, not smiling"] == {"edited": 0, "unedited": 0}
    assert all(found["pooled"][name] == pytest.approx(figures[name]) for name in FIGURES)


@pytest.mark.slow
def test_without_a_mark_edited_images_are_as_near_as_the_halves_of_the_others():
    (figures,) = evaluate(mark=0)["cells"].values()
    assert figures["auc"]["ci"][0] < 0.5 < figures["auc"]["ci"][1]
    assert figures["frechet_distance"] == pytest.approx(figures["frechet_distance_of_halves"], rel=0.3)


def test_without_enough_edits_there_is_nothing_to_pool(monkeypatch):
    monkeypatch.setattr("pipeline_lib.evaluation.leakage.LEAST", 1000)
    found = evaluate(mark=0)
    assert found["cells"] == {}
    assert len(found["left_out"]) == 4
    assert found["pooled"] == {"auc": {"value": None, "ci": [None, None]}} | dict.fromkeys(FIGURES)
