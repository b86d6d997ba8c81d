"""Detectors learn from their own half, resume exactly, and are measured by counts one can check by hand."""

from __future__ import annotations

import math
import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.config import Detectors, Parts, SupervisedTraining
from pipeline_lib.data.tables import write_table
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.classifier import PlainClassifier
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import read_json
from pipeline_lib.training import detector as detector_module
from pipeline_lib.training.calibration import fit_temperatures
from pipeline_lib.training.detector import LEAST_IN_CELL, DetectorTask, independence_weights, refuse_shortcuts
from pipeline_lib.training.loop import run
from pipeline_lib.training.measures import (
    cell_accuracies,
    detector_report,
    expected_calibration_error,
    intersection_over_union,
)
from pipeline_lib.training.segmenter import HeldOut, Masked, part_weights, train_segmenter
from pipeline_lib.training.supervised import Written, distort

CPU = torch.device("cpu")
COUNT = 24
RANDOM = np.random.default_rng(0)
SMILING = RANDOM.random(COUNT) < 0.5
PIXELS = RANDOM.integers(0, 256, (COUNT, 16, 16, 3), np.uint8)
PIXELS[SMILING, 8:, :, 0] = 255  # what a smile looks like here
NAMES = [f"image-{number:02d}" for number in range(COUNT)]
SETTINGS = Detectors(
    attributes=["smiling", "hat"], training=SupervisedTraining(kimg=0.032, batch=8), least_cell_accuracy=0
)


def test_temperatures_undo_a_known_overconfidence():
    random = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(40_000, 2, generator=random)
    truth = (torch.rand(honest.shape, generator=random) < honest.sigmoid()).float()
    found = fit_temperatures(honest * torch.tensor([3.0, 0.5]), truth)
    assert found.tolist() == pytest.approx([3.0, 0.5], rel=0.05)


def test_calibration_error_is_the_mean_distance_of_confidence_and_frequency():
    probability = np.array([0.95, 0.95, 0.95, 0.95, 0.25, 0.25])
    truth = np.array([True, True, True, False, False, False])
    assert expected_calibration_error(probability, truth) == pytest.approx(4 / 6 * 0.20 + 2 / 6 * 0.25)
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0


def test_a_detectors_report_counts_what_one_can_count_by_hand():
    probability = np.array([[0.9], [0.8], [0.3], [0.6], [0.1]])
    truth = np.array([[True], [True], [True], [False], [False]])
    report = detector_report(probability, truth, ["smiling"])["smiling"]
    counts = {"n": 5, "positives": 3, "true_positives": 2, "negatives": 2, "false_positives": 1}
    assert {name: report[name] for name in counts} == counts
    assert report["accuracy"] == pytest.approx(3 / 5)


def test_intersection_over_union_counts_pixels_and_skips_absent_parts():
    truth, found = np.array([[[0, 1], [1, 1]]]), np.array([[[0, 0], [1, 1]]])
    names = ["background", "mouth", "hat"]
    report = intersection_over_union(found, names, truth, names)
    assert report["intersection_over_union"] == pytest.approx({"background": 1 / 2, "mouth": 2 / 3})
    assert report["mean"] == pytest.approx(7 / 12)
    assert report["n"] == 1


def test_parts_are_compared_by_name_and_the_background_only_where_it_means_the_same():
    truth, found = np.array([[[0, 1], [1, 2]]]), np.array([[[2, 2], [1, 0]]])
    report = intersection_over_union(found, ["background", "hat", "mouth"], truth, ["background", "mouth", "skin"])
    assert report["intersection_over_union"] == pytest.approx({"mouth": 1 / 3})
    nothing = intersection_over_union(found, ["background", "hat", "mouth"], truth, ["background", "nose", "skin"])
    assert nothing == {"n": 1, "intersection_over_union": {}, "mean": None}


def test_a_part_weighs_by_the_inverse_root_of_its_share():
    codes = torch.tensor([0] * 75 + [1] * 24 + [2]).view(1, 10, 10)
    weights = part_weights(codes, 3)
    assert weights.mean() == pytest.approx(1)
    assert (weights[1] / weights[0]).item() == pytest.approx(math.sqrt(75 / 24))
    assert (weights[2] / weights[0]).item() == pytest.approx(math.sqrt(75))


def test_distortion_follows_its_stream_and_can_be_none():
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def distorted(seed, **strength):
        return distort(images, torch.Generator().manual_seed(seed), **strength)

    some = {"blur": 1.0, "noise": 0.1, "color": 0.2}
    assert distorted(1, **some).equal(distorted(1, **some))
    assert not torch.allclose(distorted(1, **some), distorted(2, **some))
    shifts = distorted(1, blur=1e-9, noise=0, color=0.2) - distorted(1, blur=1e-9, noise=0, color=0)
    torch.testing.assert_close(shifts, shifts[:, :, :1, :1].expand_as(shifts))  # a colour moves as a whole
    assert shifts.abs().max() <= 0.2


def make_task(stop=None):
    torch.manual_seed(0)
    truth = torch.from_numpy(SMILING.astype(np.float32))
    task = DetectorTask(
        PlainClassifier(["smiling"], 4),
        torch.from_numpy(PIXELS).permute(0, 3, 1, 2),
        torch.stack([truth, torch.ones(COUNT)], dim=1)[..., None],
        SupervisedTraining(kimg=0.08, batch=8),
        0,
        CPU,
        "train",
    )
    take = task.step

    def step(index):
        if index == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(index)

    task.step = step
    return task


def test_a_stopped_training_goes_on_to_the_very_same_weights(tmp_path):
    whole, stopped, resumed = make_task(), make_task(stop=4), make_task()
    run(whole, tmp_path / "whole")
    with pytest.raises(SystemExit):
        run(stopped, tmp_path / "stopped")
    run(resumed, tmp_path / "stopped")
    for (name, value), again in zip(
        whole.network.state_dict().items(), resumed.network.state_dict().values(), strict=True
    ):
        assert value.equal(again), name


def test_weighted_attributes_are_independent_and_keep_their_rates():
    random = np.random.default_rng(0)
    long_hair, hat = random.random(400) < 0.4, random.random(400) < 0.3
    smiling = random.random(400) < np.where(long_hair, 0.8, 0.2) - 0.1 * hat
    truth = torch.tensor(np.stack([smiling, long_hair, hat], 1), dtype=torch.float32)
    weights = independence_weights(truth, [0, 1], ["smiling", "hat", "old"])
    weight = weights[:, 0].double().numpy()
    assert np.average(smiling, weights=weight) == pytest.approx(smiling.mean())
    assert np.average(smiling[long_hair], weights=weight[long_hair]) == pytest.approx(smiling.mean())
    assert np.average(smiling[~long_hair], weights=weight[~long_hair]) == pytest.approx(smiling.mean())
    by_hat = [np.average(hat[cell], weights=weights[cell, 2].numpy()) for cell in (smiling & long_hair, ~smiling)]
    assert by_hat == pytest.approx([hat.mean()] * 2)
    assert weights.mean(dim=0).numpy() == pytest.approx(np.ones(3))


def test_without_related_attributes_every_image_counts_alike():
    truth = torch.tensor(np.random.default_rng(0).integers(0, 2, (50, 3)), dtype=torch.float32)
    assert independence_weights(truth, [], ["smiling", "hat", "old"]).equal(torch.ones(50, 3))


def test_weights_make_a_column_independent_of_others_but_not_of_its_own_values():
    random = torch.Generator().manual_seed(0)
    race = torch.randint(0, 3, (3000,), generator=random)
    smiling = torch.rand(3000, generator=random) < torch.tensor([0.8, 0.5, 0.1])[race]
    truth = torch.stack([smiling, *(race == value for value in range(3))], dim=1).float()
    weights = independence_weights(truth, [0, 1, 2, 3], ["smiling", "race=0", "race=1", "race=2"])

    def rate(has, weight, among):
        return weight[among] @ has[among].float() / weight[among].sum()

    for value in range(3):
        of_race, weight = race == value, weights[:, 1 + value]
        for among in (smiling, ~smiling):
            torch.testing.assert_close(rate(of_race, weight, among), of_race.float().mean())
        for among in (of_race, ~of_race):
            torch.testing.assert_close(rate(smiling, weights[:, 0], among), smiling.float().mean())


@pytest.fixture
def train(tmp_path, write_shards, train_small_detector):
    """Return a function that trains one detector on given pixels and returns its weights and report."""

    def run_stage(name, pixels, role="selector", settings=SETTINGS, people=None, related=(), order=None):
        labels = pd.DataFrame({"image_id": NAMES, "split": "train", "smiling": SMILING, "hat": ~SMILING})
        labels = labels if people is None else labels.assign(person=people.astype(str))
        write_table(tmp_path / "labels.parquet", "labels", labels)
        images = write_shards(pixels, NAMES, name, 2)
        order = np.arange(len(NAMES)) if order is None else order
        report = train_small_detector(
            images,
            tmp_path / "labels.parquet",
            settings,
            held_out=write_shards(pixels[order], np.array(NAMES)[order], f"{name}-held-out", 2),
            related=list(related),
            role=role,
            weights=tmp_path / name / "weights.safetensors",
        )
        return load_weights(tmp_path / name / "weights.safetensors"), report

    return run_stage


def test_the_order_of_held_out_images_changes_nothing(train):
    found = [
        train(f"order-{seed}", PIXELS, order=np.random.default_rng(seed).permutation(len(NAMES))) for seed in (0, 1)
    ]
    (one, report), (other, same) = found
    torch.testing.assert_close(one.temperature, other.temperature, rtol=0.01, atol=0)
    for name in report:
        assert report[name].pop("calibration_error") == pytest.approx(same[name].pop("calibration_error"), abs=1e-4)
    assert report == same
    assert one.temperature[0] != 1


@pytest.mark.parametrize(("role", "half"), [("selector", 0), ("referee", 1)])
def test_a_detector_learns_from_its_own_half_alone(train, role, half):
    others, own = PIXELS.copy(), PIXELS.copy()
    others[1 - half :: 2] = 0
    own[half::2] = 0

    def parameters(name, pixels):
        return torch.cat([value.flatten() for value in train(name, pixels, role)[0].parameters()])

    before = parameters("whole", PIXELS)
    assert parameters("others_blanked", others).equal(before)
    assert not torch.allclose(parameters("own_blanked", own), before)


def test_where_people_are_known_no_person_teaches_both_detectors(train):
    people = np.arange(COUNT) // 2  # two images each, one at an even position
    others = PIXELS.copy()
    others[people % 2 == 1] = 0

    def parameters(name, pixels):
        return torch.cat([value.flatten() for value in train(name, pixels, people=people)[0].parameters()])

    assert parameters("others_blanked", others).equal(parameters("whole", PIXELS))


def test_a_detector_learns_what_can_be_seen_and_reports_every_attribute(train):
    settings = SETTINGS.model_copy(update={"training": SupervisedTraining(kimg=0.48, batch=12, learning_rate=1e-2)})
    detector, report = train("longer", PIXELS, settings=settings)
    assert detector.attributes == ["smiling", "hat"]
    assert set(report) == {"smiling", "hat"}
    assert report["smiling"]["n"] == COUNT // 2  # measured on odd positions, calibrated on even ones
    assert report["smiling"]["accuracy"] >= 0.9


def test_accuracy_is_counted_in_every_cell_of_the_related_attributes():
    truth = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]], bool)
    said = np.array([[0.9, 0.2, 0], [0.1, 0.2, 0], [0.8, 0.4, 0], [0.3, 0.1, 0]])
    found = cell_accuracies(said, truth, ["smiling", "hat", "old"], ["smiling", "hat"])
    assert found["smiling"] == {
        "smiling and hat": {"n": 1, "accuracy": 1.0},
        "smiling and not hat": {"n": 2, "accuracy": 0.5},
        "not smiling and not hat": {"n": 1, "accuracy": 1.0},
    }
    assert found["hat"]["smiling and hat"] == {"n": 1, "accuracy": 0.0}


def test_a_cell_of_a_column_is_named_by_its_value():
    attributes = ["smiling", *(f"race={number}" for number in range(7)), *(f"age={number}" for number in range(9))]
    races, ages = np.eye(7, dtype=bool), np.eye(9, dtype=bool)
    truth = np.array([[True, *races[0], *ages[8]], [False, *races[3], *ages[8]], [False, *races[3], *([False] * 9)]])
    found = cell_accuracies(truth.astype(float), truth, attributes, attributes)["smiling"]  # 2 ** 17 combinations
    nine = " and ".join(f"not age={number}" for number in range(9))
    assert list(found) == [
        "smiling and race=0 and age=8",
        "not smiling and race=3 and age=8",
        f"not smiling and race=3 and {nine}",
    ]


def test_a_detector_that_tells_smiles_by_the_hair_is_refused():
    cells = {"smiling": {"long_hair": {"n": 900, "accuracy": 0.99}, "not long_hair": {"n": 40, "accuracy": 0.4}}}
    with pytest.raises(
        DataError, match=r"referee: right about `smiling` in only 0\.40 of 40 held-out images with not long"
    ):
        refuse_shortcuts(cells, 0.75, "referee")
    refuse_shortcuts(cells, 0.4, "referee")
    cells["smiling"]["not long_hair"]["n"] = LEAST_IN_CELL - 1
    refuse_shortcuts(cells, 0.75, "referee")


def test_a_refused_detector_leaves_no_file(train, tmp_path, monkeypatch):
    monkeypatch.setattr(detector_module, "LEAST_IN_CELL", 1)
    settings = SETTINGS.model_copy(update={"least_cell_accuracy": 1.0})
    with pytest.raises(DataError, match=r"`detectors\.least_cell_accuracy`"):
        train("images", PIXELS, settings=settings, related=["smiling", "hat"])
    assert not (tmp_path / "images/weights.safetensors").exists()


def test_an_attribute_without_truth_is_named(train):
    with pytest.raises(DataError, match="no column beard"):
        train("images", PIXELS, settings=SETTINGS.model_copy(update={"attributes": ["smiling", "beard"]}))


def test_a_segmenter_is_measured_against_the_true_masks(tmp_path, write_shards):
    codes = np.zeros((COUNT, 16, 16), np.uint8)
    codes[:, 8:] = 1
    pixels = np.where(codes[..., None] == 1, 230, 20).astype(np.uint8).repeat(3, axis=3)
    images = write_shards(pixels, NAMES)
    masks = pd.DataFrame({"image_id": NAMES, "codes": [image.tobytes() for image in codes]})
    write_table(tmp_path / "masks.parquet", "masks", masks)
    train_segmenter(
        masked=Masked(images, tmp_path / "masks.parquet"),
        held_out=HeldOut(images, tmp_path / "masks.parquet"),
        part_names=["background", "skin", "hat"],
        settings=Parts(width=4, training=SupervisedTraining(kimg=0.24, batch=8, learning_rate=1e-2)),
        seed=0,
        made=Written(*(tmp_path / name for name in ("checkpoints", "segmenter.safetensors", "segmenter.json"))),
        device=CPU,
    )
    report = read_json(tmp_path / "segmenter.json")
    assert set(report["intersection_over_union"]) >= {"background", "skin"}
    assert report["intersection_over_union"]["skin"] > 0.8
    assert load_weights(tmp_path / "segmenter.safetensors").parts == ["background", "skin", "hat"]
