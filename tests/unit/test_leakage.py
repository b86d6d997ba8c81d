"""A probe finds a mark on edited images and nothing where there is none; areas and their errors have closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import mannwhitneyu

from pipeline_lib.config import BoxRegion, Evaluate, PartRegion, RateRule, Rebalance
from pipeline_lib.data.tables import write_table
from pipeline_lib.editing.parts import part_rows
from pipeline_lib.evaluation.leakage import (
    FIGURES,
    Area,
    _folds,
    area_under_curve,
    crop_of,
    cross_fit,
    evaluate_leakage,
    pool_areas,
)
from pipeline_lib.runtime.files import read_json

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
    assert area.value == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    u = mannwhitneyu(scores[positive], scores[~positive]).statistic
    assert area.value == pytest.approx(u / pairs.size)


def test_the_error_of_an_area_is_how_far_it_strays():
    random = np.random.default_rng(1)
    positive = np.arange(300) < 120
    areas = [area_under_curve(random.normal(size=300) + positive, positive) for _ in range(400)]
    strayed = np.std([area.value for area in areas])
    assert np.mean([area.error for area in areas]) == pytest.approx(strayed, rel=0.1)
    covered = [area.interval(0.95).low < 0.7602 < area.interval(0.95).high for area in areas]  # Phi(1 / sqrt 2)
    assert 0.92 < np.mean(covered) < 0.98


def test_perfect_scores_have_an_area_of_one_and_no_error():
    assert area_under_curve(np.array([1.0, 2, 3, 4]), np.array([False, False, True, True])) == (1, 0)
    assert Area(0.99, 0.02).interval(0.95).high == 1


def test_pooled_areas_are_weighted_by_their_pairs():
    pooled = pool_areas({"a": Area(0.5, 0.1), "b": Area(0.9, 0.2)}, {"a": 300, "b": 100})
    assert pooled == pytest.approx((0.6, np.hypot(0.075, 0.05)))


def test_every_cell_is_spread_evenly_over_folds_that_the_seed_decides():
    strata = pd.Series(["a"] * 23 + ["b"] * 40)
    folds = _folds(strata, seed=0)
    for kind, sizes in (("a", (4, 5)), ("b", (8, 8))):
        counts = np.bincount(folds[strata == kind], minlength=5)
        assert (counts.min(), counts.max()) == sizes
    assert (folds == _folds(strata, seed=0)).all()
    assert (folds != _folds(strata, seed=1)).any()


def test_a_mark_of_one_pixel_is_found():
    images, edited = noise(400), halves(400)
    images[edited, :, 5, 6] += 40
    area = area_under_curve(cross_fit(images, edited, np.full(400, "cell"), 0, CPU, STEPS), edited)
    assert area.value > 0.95


def test_two_draws_of_one_distribution_are_not_told_apart():
    edited = halves(400)
    area = area_under_curve(cross_fit(noise(400), edited, np.full(400, "cell"), 0, CPU, STEPS), edited)
    assert area.value == pytest.approx(0.5, abs=4 * area.error)
    assert area.error == pytest.approx(0.029, abs=0.003)  # sqrt of (n + 1) / (12 n1 n0)


def test_the_cell_itself_is_no_help():
    # The cells differ in colour and in their share of edited images, and nothing else does.
    cells = np.where(np.arange(400) < 200, "a", "b")
    edited = np.where(cells == "a", np.arange(400) % 5 > 0, np.arange(400) % 5 == 0)
    images = noise(400) // 2
    images[cells == "a"] += 120
    scores = cross_fit(images, edited, cells, 0, CPU, STEPS)
    for cell in ("a", "b"):
        area = area_under_curve(scores[cells == cell], edited[cells == cell])
        assert area.value == pytest.approx(0.5, abs=4 * area.error)


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


@pytest.fixture
def evaluate(tmp_path, write_shards):
    """Return a function that runs the stage on short-haired faces that smile, and on few that have long hair."""

    def run(mark):
        count = 160
        pixels = noise(count, side=32).permute(0, 2, 3, 1).numpy()
        names = [f"face-{number:03d}" for number in range(count)]
        long_hair, edited = np.arange(count) < 12, halves(count)
        pixels[edited, 20, 16] += mark
        codes = np.zeros((32, 32), int)
        codes[18:22, 12:20] = 1
        rows = [row for name in names for row in part_rows(name, codes, ["background", "mouth"])]
        write_table(tmp_path / "parts.parquet", "parts", pd.DataFrame(rows))
        labels = pd.DataFrame({"image_id": names, "edited": edited})
        write_table(tmp_path / "labels.parquet", "assembled", labels)
        scores = pd.DataFrame({"image_id": names, "long_hair": np.float32(long_hair), "smiling": np.float32(1)})
        write_table(tmp_path / "scores.parquet", "scores", scores.iloc[::-1])
        evaluate_leakage(
            images=write_shards(pixels, names, "dataset_rebalanced", shards=2),
            labels=tmp_path / "labels.parquet",
            parts=tmp_path / "parts.parquet",
            selector=tmp_path / "scores.parquet",
            referee=tmp_path / "scores.parquet",
            settings=Rebalance(targets=TARGETS),
            evaluate=Evaluate(leakage_steps=STEPS),
            seed=0,
            leakage=tmp_path / "leakage.json",
            device=CPU,
        )
        return read_json(tmp_path / "leakage.json")

    return run


def test_a_mark_shows_in_the_cell_that_it_is_in_and_small_cells_are_named(evaluate):
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


def test_without_a_mark_edited_images_are_as_near_as_the_halves_of_the_others(evaluate):
    (figures,) = evaluate(mark=0)["cells"].values()
    assert figures["auc"]["ci"][0] < 0.5 < figures["auc"]["ci"][1]
    assert figures["frechet_distance"] == pytest.approx(figures["frechet_distance_of_halves"], rel=0.3)


def test_without_enough_edits_there_is_nothing_to_pool(evaluate, monkeypatch):
    monkeypatch.setattr("pipeline_lib.evaluation.leakage.LEAST", 1000)
    found = evaluate(mark=0)
    assert found["cells"] == {}
    assert len(found["left_out"]) == 4
    assert found["pooled"] == {"auc": {"value": None, "ci": [None, None]}} | dict.fromkeys(FIGURES)
