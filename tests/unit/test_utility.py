"""Classifiers are trained and tested as said, their figures are fairlearn's, and what they cannot tell is named."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from scipy.stats import binomtest, norm

from pipeline_lib.audit.estimate import Estimate
from pipeline_lib.config import Evaluate, LibraryNetwork, RateRule, Rebalance, Utility
from pipeline_lib.data.avatars.settings import AvatarData
from pipeline_lib.data.tables import write_table
from pipeline_lib.evaluation.classifiers import TrainingSet, reduced, train_and_predict
from pipeline_lib.evaluation.gain import MARGIN, Comparison, images_needed, judge_gain, least_of
from pipeline_lib.evaluation.utility import (
    Cells,
    cell_accuracies,
    evaluate_utility,
    figures,
    gain_of,
    independence_weights,
    resampled,
)
from pipeline_lib.report.tables import METHODS
from pipeline_lib.runtime.errors import DataError, WeightsError
from pipeline_lib.runtime.files import read_json

CPU = torch.device("cpu")
SETTINGS = Utility(seeds=2, steps=60)
TARGETS = [RateRule(where={"long_hair": value}, attribute="smiling", rate=0.5) for value in (True, False)]


def draw_cells(counts, seed=0):
    """Return cells with these numbers of images, in random order."""
    number = np.repeat(np.arange(len(counts)), counts)
    number = np.random.default_rng(seed).permutation(number)
    return Cells(number // 2, number % 2 == 1)


def draw_images(cells, seed, strength=45):
    """Return 16-pixel images whose red shows the group plainly and of which a small square shows the value faintly."""
    random = np.random.default_rng(seed)
    pixels = random.normal(128, 40, (len(cells.group), 16, 16, 3))
    pixels[..., 0] += np.where(cells.group == 1, 90, -90)[:, None, None]
    pixels[:, 9:13, 5:11, 1] += np.where(cells.value, strength, -strength)[:, None, None]
    return pixels.clip(0, 255).astype(np.uint8)


def test_figures_are_those_of_fairlearn_with_cells_of_equal_weight():
    fairlearn = pytest.importorskip("fairlearn.metrics")
    tested = draw_cells([40, 90, 25, 60, 33, 51])  # three groups
    said = np.where(np.random.default_rng(1).random(len(tested.value)) < 0.7, tested.value, ~tested.value)
    weights = 1 / np.bincount(tested.number)[tested.number]
    given = {"sensitive_features": tested.group, "sample_params": {"sample_weight": weights}}
    selected = fairlearn.MetricFrame(metrics=fairlearn.selection_rate, y_true=tested.value, y_pred=said, **given)
    right = fairlearn.MetricFrame(
        metrics=lambda y, p: np.mean(y == p), y_true=tested.value, y_pred=said, sensitive_features=tested.number
    )
    odds = fairlearn.equalized_odds_difference(
        tested.value, said, sensitive_features=tested.group, sample_weight=weights
    )
    found = figures(cell_accuracies((said == tested.value)[None], tested, 6))
    assert found["worst_group"][0] == pytest.approx(right.group_min())
    assert found["balanced_accuracy"][0] == pytest.approx(right.by_group.mean())
    assert found["parity_gap"][0] == pytest.approx(selected.difference(method="between_groups"))
    assert found["equalized_odds"][0] == pytest.approx(odds)


def test_no_figure_is_of_the_other_cells_if_one_has_a_single_image():
    tested = draw_cells([30, 1, 30, 30])
    correct = np.ones((2, len(tested.value)), bool)
    correct[:, tested.number == 1] = False
    found = cell_accuracies(correct, tested, 4)
    np.testing.assert_array_equal(found, [[1, np.nan, 1, 1]] * 2)
    assert all(np.isnan(values).all() for values in figures(found).values())


def test_intervals_account_for_images_and_for_seeds():
    tested = draw_cells([400, 400])
    correct = np.random.default_rng(2).random((1, 800)) < 0.8
    drawn = resampled({"x": correct}, tested, 2, 2000, 0)["x"][1]
    share = correct[0, tested.number == 0].mean()
    assert drawn[..., 0].std() == pytest.approx(np.sqrt(share * (1 - share) / 400), rel=0.1)  # binomial
    two = np.stack([np.ones(800, bool), np.zeros(800, bool)])  # seeds that disagree, images that do not matter
    means = resampled({"x": two}, tested, 2, 2000, 0)["x"][1, ..., 0].mean(axis=1)
    assert means.std() == pytest.approx(two[:, 0].std(ddof=1) / np.sqrt(2), rel=0.05)  # of the mean of two


@pytest.mark.parametrize("right", [50, 47])
def test_the_interval_of_one_cell_is_that_of_clopper_and_pearson_even_without_an_error(right):
    tested = Cells(np.zeros(50, int), np.zeros(50, bool))
    correct = np.arange(50)[None] < right
    drawn = resampled({"x": correct}, tested, 1, 20_000, 0)["x"].mean(axis=2)[..., 0]
    exact = binomtest(right, 50).proportion_ci(0.95)
    found = least_of(np.full((1, 1), right / 50), drawn[..., None], 0.95)
    assert found[1:] == pytest.approx((exact.low, exact.high), abs=0.004)


def draw_correct(accuracies, count, random, seeds=3):
    """Return who is right, {method: bool (seeds, n)}, about `count` images a cell, some of which are hard for all."""
    number = np.repeat(np.arange(len(next(iter(accuracies.values())))), count)
    hard = random.standard_normal(len(number))
    return Cells(number // 2, number % 2 == 1), {
        method: np.sqrt(0.6) * hard + np.sqrt(0.4) * random.standard_normal((seeds, len(number)))
        < norm.ppf(np.repeat(of_cells, count))
        for method, of_cells in accuracies.items()
    }


def measure(accuracies, count, random, resamples=200, seeds=3):
    """Return accuracies by cell and their draws, for one run with `count` held-out images a cell."""
    tested, correct = draw_correct(accuracies, count, random, seeds)
    cells = int(tested.number.max()) + 1
    found = {method: cell_accuracies(rows, tested, cells) for method, rows in correct.items()}
    return found, resampled(correct, tested, cells, resamples, int(random.integers(2**31))), tested


@pytest.mark.parametrize(
    ("cells", "count", "seeds", "width"),
    [
        ((0.85, 0.87, 0.9, 0.95), 150, 3, 1.4),
        ((0.9, 0.9, 0.95, 0.97), 150, 3, 1.4),
        ((0.9,) * 4, 125, 5, 1.6),  # where the least that is found is lower than the true one
        ((0.9,) * 14, 100, 3, 1.8),
    ],
)
def test_the_interval_of_the_worst_group_covers_the_true_one_however_many_cells_are_alike(cells, count, seeds, width):
    random, limits = np.random.default_rng(0), []
    for _ in range(100):
        found, drawn, _ = measure({"x": cells}, count, random, seeds=seeds)
        limits.append(least_of(found["x"], drawn["x"].mean(axis=2), 0.95)[1:])
    low, high = np.transpose(limits)
    assert (low > min(cells)).mean() <= 0.03
    assert (high < min(cells)).mean() <= 0.03
    exact = binomtest(round(count * min(cells)), count).proportion_ci(0.95)  # of who knows which cell is the worst
    assert np.mean(high - low) <= width * (exact.high - exact.low)


#: True accuracies of two methods with edits and two without; the worst groups differ by the gain.
def accuracies_with(gain):
    edited = np.array([0.9, 0.92, 0.95, 0.95]) + min(gain, 0)
    plain = np.array([0.9, 0.93, 0.94, 0.96]) - max(gain, 0)
    with_edits = {"rebalanced": edited, "rebalanced_confirmed": edited[[1, 0, 2, 3]]}
    return with_edits | {"resampled": plain, "group_dro": plain[[2, 1, 0, 3]]}


def judge_runs(accuracies, count, runs):
    """Return the gains that runs find, with `count` held-out images a cell."""
    random = np.random.default_rng(1)
    measured = (measure(accuracies, count, random) for _ in range(runs))
    return [gain_of(found, drawn, 0.95, tested, complete=True) for found, drawn, tested in measured]


def verdicts(gain, count, runs=100):
    """Return the share of runs with each verdict, with `count` held-out images a cell."""
    said = [found.verdict for found in judge_runs(accuracies_with(gain), count, runs)]
    return {verdict: said.count(verdict) / runs for verdict in Comparison}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edited", "plain", "count", "gain"),
    [
        ((0.88,) * 4, (0.95, 0.95, 0.95, 0.88), 250, 0.0),
        ((0.95, 0.95, 0.95, 0.88), (0.88,) * 4, 250, 0.0),
        ((0.88,) * 14, (0.95,) * 13 + (0.88,), 72, 0.0),
        ((0.88,) * 14, (0.95,) * 13 + (0.85,), 143, 0.03),
        ((0.9,) * 4, (0.9,) * 4, 125, 0.0),
    ],
)
def test_methods_that_even_out_the_cells_are_not_said_to_be_worse_nor_others_to_be_better(edited, plain, count, gain):
    """The least of accuracies that are alike is found too low, and more so than a bootstrap shows."""
    runs = judge_runs({"rebalanced": edited, "resampled": plain}, count, 60)
    assert np.mean([found.ci[1] < gain for found in runs]) <= 0.05
    assert np.mean([found.ci[0] > gain for found in runs]) <= 0.05


def test_a_large_gain_is_found_with_few_images():
    runs = judge_runs({"rebalanced": (0.97,) * 4, "resampled": (0.95, 0.56, 0.6, 0.95)}, 100, 10)
    assert [found.verdict for found in runs] == [Comparison.BETTER] * 10


@pytest.mark.long
@pytest.mark.parametrize(("gain", "count"), [(0.03, 150), (0.03, 500), (MARGIN, 1000)])
def test_methods_that_differ_by_the_margin_or_more_are_hardly_ever_said_to_be_equivalent(gain, count):
    found = verdicts(gain, count)
    assert found[Comparison.EQUIVALENT] <= 0.05
    assert found[Comparison.WORSE] <= 0.05


@pytest.mark.long
def test_enough_images_tell_what_differs_from_what_is_equivalent():
    assert verdicts(0.05, 1500, 20)[Comparison.BETTER] >= 0.9
    assert verdicts(-0.05, 1500, 20)[Comparison.WORSE] >= 0.9
    assert verdicts(0.0, 8000, 10)[Comparison.EQUIVALENT] >= 0.9


def test_a_gain_is_judged_by_two_one_sided_tests_and_then_by_whether_it_is_zero():
    judged = {
        (0.0, -0.019, 0.019): Comparison.EQUIVALENT,
        (0.01, 0.001, 0.019): Comparison.EQUIVALENT,  # less than matters, though not nothing
        (0.03, 0.001, 0.06): Comparison.BETTER,
        (-0.03, -0.06, -0.001): Comparison.WORSE,
        (0.0, -0.021, 0.019): Comparison.UNDECIDED,
        (0.03, -0.01, 0.07): Comparison.UNDECIDED,
    }
    assert {gain: judge_gain(Estimate(*gain)) for gain in judged} == judged


@pytest.mark.parametrize("value", [0.0, 0.01, 0.03])
def test_the_images_said_to_be_needed_decide_in_most_runs_and_half_of_them_do_not(value):
    needed = images_needed(Estimate(value, value - 0.04, value + 0.04), 1000, 0.95)

    def share(count):
        error = 0.04 / norm.ppf(0.975) * np.sqrt(1000 / count)
        centres = np.random.default_rng(0).normal(value, error, 4000)
        width = norm.ppf(0.975) * error
        said = [judge_gain(Estimate(centre, centre - width, centre + width)) for centre in centres]
        return 1 - said.count(Comparison.UNDECIDED) / len(said)

    assert share(needed) >= 0.78
    assert share(needed / 2) < 0.78


def test_weights_make_group_and_value_independent():
    cells = draw_cells([10, 40, 45, 5])
    outside = Cells(np.append(cells.group, -1), np.append(cells.value, True))
    weights = independence_weights(outside)
    assert weights[-1] == 0
    assert weights[:-1][cells.number == 0][0] == pytest.approx(0.5 * 0.55 / 0.10)  # P(group) P(value) / P(group, value)
    totals = np.bincount(cells.number, weights[:-1]).reshape(2, 2)
    assert totals[0, 1] / totals[0].sum() == pytest.approx(totals[1, 1] / totals[1].sum())
    assert weights.sum() == pytest.approx(100)


@pytest.mark.slow
def test_evenly_drawn_cells_weights_and_group_dro_help_the_worst_group_where_a_shortcut_tempts():
    cells, tested = draw_cells([395, 5, 5, 395]), draw_cells([100] * 4, seed=1)
    pixels, test_pixels = draw_images(cells, 0, 60), draw_images(tested, 1, 60)
    sets = {
        "original": TrainingSet(pixels, cells.number),
        "reweighted": TrainingSet(pixels, cells.number, weights=independence_weights(cells)),
        "resampled": TrainingSet(pixels, cells.number, by_cell=True),
        "group_dro": TrainingSet(pixels, cells.number, by_cell=True, worst_case=True),
    }
    worst = {}
    for name, training in sets.items():
        said = np.stack([train_and_predict(training, test_pixels, SETTINGS, seed, CPU) for seed in range(2)])
        worst[name] = figures(cell_accuracies(said == tested.value, tested, 4))["worst_group"].mean()
    assert min(worst[name] for name in ("reweighted", "resampled", "group_dro")) > worst["original"] + 0.2


@pytest.mark.long
def test_a_network_of_a_library_learns_as_well_from_scratch_or_from_weights(tmp_path):
    cells = draw_cells([60, 60])
    pixels = draw_images(cells, 0, 90)
    weights = torchvision.models.resnet18(num_classes=1000).state_dict()
    torch.save(weights, tmp_path / "resnet18.pth")
    found = []
    for path in (None, tmp_path / "resnet18.pth"):
        network = LibraryNetwork(name="resnet18", weights=path)
        settings = SETTINGS.model_copy(update={"network": network, "steps": 25, "learning_rate": 1e-3})
        said = train_and_predict(TrainingSet(pixels, cells.number), pixels, settings, 0, CPU)
        found.append((said == cells.value).mean())
    assert min(found) > 0.9
    with pytest.raises(WeightsError, match="not the weights of resnet34"):
        settings = settings.model_copy(update={"network": LibraryNetwork(name="resnet34", weights=path)})
        train_and_predict(TrainingSet(pixels, cells.number), pixels, settings, 0, CPU)


def test_images_in_no_cell_teach_nothing():
    cells = draw_cells([60, 60])
    pixels, number = draw_images(cells, 0), cells.number.copy()
    number[:20] = -1
    strange = pixels.copy()
    strange[:20] = 0
    said = [train_and_predict(TrainingSet(x, number), pixels, SETTINGS, 0, CPU) for x in (pixels, strange)]
    np.testing.assert_array_equal(*said)


def test_images_are_reduced_by_averages_and_smaller_ones_kept():
    pixels = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(1, 4, 4, 3)
    np.testing.assert_array_equal(reduced(pixels, 2)[0, 0, 0], pixels[0, :2, :2].mean(axis=(0, 1)).round())
    assert reduced(pixels, 4) is pixels


@pytest.fixture
def run(tmp_path, write_shards):
    """Return a function that writes a small run whose edits balance the dataset, and evaluates it."""

    def evaluate(held_out=(20, 20, 20, 20), labelled=True, seeds=2, train=(45, 5, 5, 45)):
        cells, tested = draw_cells(train), draw_cells(held_out, seed=1)
        names, test_names = ([f"{kind}-{number:03d}" for number in range(count)] for kind, count in (
            ("dataset", 100), ("held_out", sum(held_out))
        ))  # fmt: skip
        edited = (np.arange(100) % 2 == 0) & np.isin(cells.number, (0, 3))
        after = cells.with_value(cells.value ^ edited)
        pixels = draw_images(cells, 0)
        made = np.where(edited[:, None, None, None], draw_images(after, 0), pixels)
        sets = {"dataset": (pixels, names), "dataset_rebalanced": (made, names)}
        sets["held_out"] = (draw_images(tested, 1), test_names)
        shards = {name: write_shards(*given, name) for name, given in sets.items()}
        for name, given, ids in (("labels", cells, names), ("held_out", tested, test_names)):
            columns = {"smiling": given.value} if labelled else {"hat": given.value}
            rows = pd.DataFrame({"image_id": ids, "split": "train", "long_hair": given.group == 0, **columns})
            write_table(tmp_path / f"{name}.parquet", "labels", rows)
        flags = pd.DataFrame({"image_id": names, "edited": edited})
        write_table(tmp_path / "assembled.parquet", "assembled", flags)
        plan = pd.DataFrame({"image_id": names, "position": range(100), "target": cells.group, "attribute": "smiling"})
        write_table(tmp_path / "plan.parquet", "plan", plan.assign(wanted=after.value)[edited])
        denied = np.flatnonzero(edited)[:3]
        scores = after.value.astype(np.float32)
        scores[denied] = 1 - scores[denied]
        write_table(tmp_path / "referee.parquet", "scores", pd.DataFrame({"image_id": names, "smiling": scores}))
        evaluate_utility(
            images=shards["dataset"],
            labels=tmp_path / "labels.parquet",
            rebalanced=shards["dataset_rebalanced"],
            assembled=tmp_path / "assembled.parquet",
            plan=tmp_path / "plan.parquet",
            referee=tmp_path / "referee.parquet",
            held_out=shards["held_out"],
            held_out_labels=tmp_path / "held_out.parquet",
            truth=[],
            checked=[],
            counterfactuals=[],
            data=AvatarData(),
            settings=Rebalance(targets=TARGETS),
            evaluate=Evaluate(utility=Utility(seeds=seeds, steps=20)),
            seed=0,
            utility=tmp_path / "utility.json",
            device=CPU,
        )
        return read_json(tmp_path / "utility.json"), int(edited.sum())

    return evaluate


@pytest.mark.slow
def test_each_method_learns_from_the_images_and_labels_that_its_name_says(run):
    found, edited = run()
    methods = found["methods"]
    assert set(methods) == set(METHODS) - {"ideal"}
    names = ["long_hair, not smiling", "long_hair, smiling", "not long_hair, not smiling", "not long_hair, smiling"]
    for method in ("original", "reweighted", "resampled", "group_dro"):
        assert methods[method]["images"] == dict(zip(names, (45, 5, 5, 45), strict=True))
        assert methods[method]["label_error"] == 0
    moved = methods["rebalanced"]["images"]
    assert moved["long_hair, smiling"] + moved["not long_hair, not smiling"] == 10 + edited
    assert sum(moved.values()) == 100
    assert sum(methods["rebalanced_confirmed"]["images"].values()) == 97
    assert methods["rebalanced"]["label_error"] is None  # nobody knows the truth of these edits
    assert found["left_out"] == []
    for figure in methods["rebalanced"].keys() & {"worst_group", "balanced_accuracy", "parity_gap", "equalized_odds"}:
        low, high = methods["rebalanced"][figure]["ci"]
        assert low <= high
    assert run()[0] == found


@pytest.mark.slow
def test_a_cell_without_held_out_images_is_named(run, caplog):
    with caplog.at_level(logging.WARNING):
        found, _ = run(held_out=(20, 0, 20, 20))
    assert found["left_out"] == ["long_hair, smiling"]
    original = found["methods"]["original"]
    assert original["cells"]["long_hair, smiling"] is None
    assert original["cells"]["long_hair, not smiling"] is not None
    for figure in ("worst_group", "balanced_accuracy", "parity_gap", "equalized_odds"):
        assert original[figure] == {"value": None, "ci": [None, None]}  # never of the other cells alone
    assert "fewer than 2 held-out images in `long_hair, smiling`" in caplog.text
    assert (found["gain"]["verdict"], found["gain"]["value"]) == ("could not be determined", None)


def test_where_a_cell_has_no_training_image_there_is_no_verdict(run, caplog):
    with caplog.at_level(logging.WARNING):
        found, _ = run(train=(50, 0, 5, 45), seeds=1)  # smiling does not occur with long hair
    assert found["untrained"] == ["long_hair, smiling"]
    assert "no training image is in `long_hair, smiling`" in caplog.text
    assert (found["gain"]["verdict"], found["gain"]["value"]) == ("could not be determined", None)


def test_a_missing_label_is_named(run):
    with pytest.raises(DataError, match=r"labels\.parquet: no label `smiling` .* `evaluate\.utility: null`"):
        run(labelled=False)
