"""Classifiers are trained and tested as said, their figures are fairlearn's, and what they cannot tell is named."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision

from pipeline_lib.config import AvatarData, Evaluate, LibraryNetwork, RateRule, Rebalance, Utility
from pipeline_lib.data.tables import write_table
from pipeline_lib.evaluation.classifiers import TrainingSet, reduced, train_and_predict
from pipeline_lib.evaluation.utility import (
    Cells,
    cell_accuracies,
    evaluate_utility,
    figures,
    independence_weights,
    resampled,
)
from pipeline_lib.report.utility import METHODS, describe_utility, say_utility, utility_figure, utility_table
from pipeline_lib.runtime.errors import DataError, WeightsError
from pipeline_lib.runtime.files import read_json

CPU = torch.device("cpu")
SETTINGS = Utility(seeds=2, steps=60, batch=32)
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


def test_a_cell_with_a_single_image_is_in_no_figure():
    tested = draw_cells([30, 1, 30, 30])
    correct = np.ones((2, len(tested.value)), bool)
    correct[:, tested.number == 1] = False
    found = cell_accuracies(correct, tested, 4)
    np.testing.assert_array_equal(found, [[1, np.nan, 1, 1]] * 2)
    said = figures(found)
    assert said["worst_group"].tolist() == said["balanced_accuracy"].tolist() == [1, 1]
    assert np.isnan(said["parity_gap"]).all()  # of one group alone
    assert np.isnan(said["equalized_odds"]).all()


def test_intervals_account_for_images_and_for_seeds():
    tested = draw_cells([400, 400])
    correct = np.random.default_rng(2).random((1, 800)) < 0.8
    drawn = resampled({"x": correct}, tested, 2, 2000, 0)["x"]
    share = correct[0, tested.number == 0].mean()
    assert drawn[..., 0].std() == pytest.approx(np.sqrt(share * (1 - share) / 400), rel=0.1)  # binomial
    two = np.stack([np.ones(800, bool), np.zeros(800, bool)])  # seeds that disagree, images that do not matter
    means = resampled({"x": two}, tested, 2, 2000, 0)["x"][..., 0].mean(axis=1)
    assert set(means) == {0.0, 0.5, 1.0}
    assert means.std() == pytest.approx(np.sqrt(0.125), rel=0.05)  # of the mean of two fair draws


def test_weights_make_group_and_value_independent():
    cells = draw_cells([10, 40, 45, 5])
    outside = Cells(np.append(cells.group, -1), np.append(cells.value, True))
    weights = independence_weights(outside)
    assert weights[-1] == 0
    assert weights[:-1][cells.number == 0][0] == pytest.approx(0.5 * 0.55 / 0.10)  # P(group) P(value) / P(group, value)
    totals = np.bincount(cells.number, weights[:-1]).reshape(2, 2)
    assert totals[0, 1] / totals[0].sum() == pytest.approx(totals[1, 1] / totals[1].sum())
    assert weights.sum() == pytest.approx(100)


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


def test_a_network_of_a_library_learns_as_well_from_scratch_or_from_weights(tmp_path):
    cells = draw_cells([60, 60])
    pixels = draw_images(cells, 0, 90)
    weights = torchvision.models.resnet18(num_classes=1000).state_dict()
    torch.save(weights, tmp_path / "resnet18.pth")
    found = []
    for path in (None, tmp_path / "resnet18.pth"):
        network = LibraryNetwork(name="resnet18", weights=path)
        settings = SETTINGS.model_copy(update={"network": network, "steps": 25, "batch": 16, "learning_rate": 1e-3})
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

    def evaluate(held_out=(20, 20, 20, 20), labelled=True, seeds=2):
        cells, tested = draw_cells([45, 5, 5, 45]), draw_cells(held_out, seed=1)
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
        flags = pd.DataFrame({"image_id": names, "edited": edited, "touched": False})
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
            counterfactuals=[],
            data=AvatarData(),
            settings=Rebalance(targets=TARGETS),
            evaluate=Evaluate(resamples=100, utility=Utility(seeds=seeds, steps=20, batch=16)),
            seed=0,
            utility=tmp_path / "utility.json",
            device=CPU,
        )
        return read_json(tmp_path / "utility.json"), int(edited.sum())

    return evaluate


def test_each_method_learns_from_the_images_and_labels_that_its_name_says(run):
    found, edited = run()
    methods = found["methods"]
    assert set(methods) == set(METHODS) - {"ideal", "rebalanced_touched"}
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


def test_a_cell_without_held_out_images_is_named(run, caplog):
    with caplog.at_level(logging.WARNING):
        found, _ = run(held_out=(20, 0, 20, 20))
    assert found["left_out"] == ["long_hair, smiling"]
    assert found["methods"]["original"]["cells"]["long_hair, smiling"] is None
    assert found["methods"]["original"]["parity_gap"]["value"] is None
    assert "fewer than 2 held-out images in `long_hair, smiling`" in caplog.text
    assert "long hair, smiling" in describe_utility(found)


def test_a_missing_label_is_named(run):
    with pytest.raises(DataError, match=r"labels\.parquet: no label `smiling` .* `evaluate\.utility: null`"):
        run(labelled=False)


@pytest.mark.parametrize(
    ("ci", "said"),
    [((0.1, 0.3), "Edits help"), ((-0.3, -0.1), "a cheaper method is better"), ((-0.1, 0.2), "are enough")],
)
def test_the_sentence_follows_from_the_interval_of_the_gain(run, ci, said):
    found, _ = run(seeds=1)
    found["gain"]["ci"] = list(ci)
    assert said in say_utility(found)
    assert len(utility_figure(found).axes[0].get_yticklabels()) == len(found["methods"])
    assert utility_table(found)["classifier trained on"].tolist()[:2] == [METHODS["original"], METHODS["reweighted"]]
    assert utility_table(None).empty
    assert say_utility(None) == describe_utility(None) == ""
