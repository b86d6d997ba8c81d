"""Every promise is checked by itself: a run that keeps all but one fails that one check."""

from __future__ import annotations

import copy

import pytest

from experiments.accept import check_run, main, minutes_at_work
from pipeline_lib.config.names import IMAGE_SETS
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import write_json

GAPS = {
    "dataset": 0.60,
    "samples": 0.50,
    "samples_rebalanced": -0.03,
    "dataset_rebalanced": 0.02,
    "retrained": 0.07,
    "control": 0.45,
}
GROUPS = ("long_hair", "not long_hair")
RATES = {"retrained": (0.55, 0.48), "control": (0.75, 0.30)}
KEPT = {
    "rate": {
        "smiling": {
            stage: {"referee": {group: {"value": rate} for group, rate in zip(GROUPS, rates, strict=True)}}
            for stage, rates in RATES.items()
        }
    },
    "certificate": {"targets": [{"group": group, "target": 0.5} for group in GROUPS]},
    "gap": {"smiling": {stage: {"referee": {"value": value}} for stage, value in GAPS.items()}},
    "edits": {
        "samples": {"share_by_selector": 0.97, "share_by_referee": 0.93},
        "dataset": {"share_by_selector": 0.99, "share_by_referee": 0.98, "share_in_their_group_by_referee": 0.997},
    },
    "counterfactual": {
        "share_by_truth": 0.98,
        "share_identical_outside": 1.0,
        "median_psnr_ideal": 39.0,
        "median_psnr_inside": 30.0,
    },
    "leakage": {"dataset": {"pooled": {"auc": {"value": 0.7}}}},
    "detectors": {judge: {"smiling": {"accuracy": 0.99}} for judge in ("selector", "referee")},
    "agreement": {stage: {"smiling": 0.97, "hat": 0.2} for stage in IMAGE_SETS},
    "segmenter": {"mean": 0.9},
    "quality": {stage: {"frechet_distance": {"value": 10.0}} for stage in IMAGE_SETS},
}
KEPT["gap"]["smiling"]["dataset"]["truth"] = {"value": 0.62}
KEPT["gap"]["smiling"]["dataset_rebalanced"]["truth"] = {"value": 0.01}


def failures(folder, metrics):
    write_json(folder / "evaluation/metrics.json", metrics)
    return [check.promise for check in check_run(folder) if not check.passed]


def test_time_counts_once_where_jobs_run_side_by_side_and_not_between_them(tmp_path):
    (tmp_path / "swap_parts").mkdir()
    spans = {"train.log": ("10:00:00", "10:04:00"), "swap_parts/0.log": ("10:03:00", "10:06:30")}
    spans |= {"swap_parts/1.log": ("10:05:00", "10:06:00"), "score.log": ("12:00:00", "12:00:30")}
    for name, (first, last) in spans.items():
        (tmp_path / name).write_text(f"2026-11-25 {first},000 begins\nany line\n2026-11-25 {last},000 ends\n")
    assert minutes_at_work(tmp_path) == pytest.approx(7.0)


def test_the_time_of_a_run_is_said_but_is_no_criterion(tmp_path, capsys):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/a.log").write_text("2026-11-25 10:00:00,000 begins\n2026-11-25 10:50:01,000 ends\n")
    write_json(tmp_path / "evaluation/metrics.json", KEPT)
    assert main([str(tmp_path)]) == 0
    assert "Jobs were running for 50 minutes" in capsys.readouterr().out


def test_a_run_that_keeps_every_promise_passes(tmp_path):
    assert failures(tmp_path, KEPT) == []


@pytest.mark.parametrize(
    ("place", "value", "promise"),
    [
        ("gap.smiling.samples.referee.value", 0.3, "gap of the samples as a share"),
        ("gap.smiling.samples_rebalanced.referee.value", -0.09, "gap| of the rebalanced samples"),
        ("gap.smiling.dataset_rebalanced.referee.value", 0.04, "gap| of the rebalanced dataset by referee"),
        ("gap.smiling.dataset_rebalanced.truth.value", -0.04, "gap| of the rebalanced dataset by truth"),
        ("gap.smiling.control.referee.value", 0.39, "gap of the control"),
        ("gap.smiling.retrained.referee.value", -0.14, "gap| of the retrained GAN"),
        ("rate.smiling.retrained.referee.not long_hair.value", 0.37, "distance of the retrained GAN's worst rate"),
        ("edits.samples.share_by_selector", 0.94, "swaps of the samples that succeed by the selector"),
        ("edits.dataset.share_by_selector", 0.97, "swaps of the dataset that succeed by the selector"),
        ("edits.dataset.share_by_referee", 0.96, "swaps of the dataset that succeed by the referee"),
        ("edits.dataset.share_in_their_group_by_referee", 0.99, "edited images of the dataset that the referee finds"),
        ("counterfactual.share_by_truth", 0.96, "swaps of the dataset that succeed by truth"),
        ("counterfactual.share_identical_outside", 0.999, "unchanged outside the region"),
        ("counterfactual.median_psnr_ideal", 37.9, "median PSNR (ideal)"),
        ("counterfactual.median_psnr_inside", 28.9, "median PSNR (inside)"),
        ("leakage.dataset.pooled.auc.value", 0.81, "leakage of the dataset's edits"),
        ("detectors.referee.smiling.accuracy", 0.97, "accuracy of the referee on `smiling`"),
        ("agreement.retrained.smiling", 0.94, "agreement of the detectors on retrained"),
        ("segmenter.mean", 0.84, "intersection over union"),
        ("quality.retrained.frechet_distance.value", 25.1, "Fréchet distance of the retrained GAN"),
    ],
)
def test_a_broken_promise_is_the_one_that_fails(tmp_path, place, value, promise):
    metrics = copy.deepcopy(KEPT)
    *way, last = place.split(".")
    node = metrics
    for step in way:
        node = node[step]
    node[last] = value
    (failed,) = failures(tmp_path, metrics)
    assert promise in failed


@pytest.mark.parametrize(
    ("stage", "rates", "reason"),
    [("retrained", (None, 0.5), "no images in `long_hair` of retrained"), ("control", (0.5, 0.5), "is on target")],
)
def test_a_share_of_a_control_that_is_not_defined_fails_by_name(tmp_path, stage, rates, reason):
    metrics = copy.deepcopy(KEPT)
    for group, rate in zip(GROUPS, rates, strict=True):
        metrics["rate"]["smiling"][stage]["referee"][group]["value"] = rate
    (failed,) = failures(tmp_path, metrics)
    assert "distance of the retrained GAN's worst rate" in failed
    assert reason in failed


def test_a_dataset_without_its_bias_fails(tmp_path):
    metrics = copy.deepcopy(KEPT)
    metrics["gap"]["smiling"]["dataset"]["truth"]["value"] = 0.29
    assert "gap of the dataset by ground truth is at least 0.3" in failures(tmp_path, metrics)


def test_a_run_without_figures_is_named(tmp_path):
    with pytest.raises(DataError, match=r"metrics\.json: no such file"):
        check_run(tmp_path)


@pytest.mark.parametrize(("accuracy", "status"), [(0.99, 0), (0.5, 1)])
def test_the_command_prints_every_promise_and_fails_if_one_is_not_kept(tmp_path, capsys, accuracy, status):
    metrics = copy.deepcopy(KEPT)
    metrics["detectors"]["referee"]["smiling"]["accuracy"] = accuracy
    write_json(tmp_path / "evaluation/metrics.json", metrics)
    assert main([str(tmp_path)]) == status
    *lines, _, last = capsys.readouterr().out.splitlines()
    assert len(lines) == len(check_run(tmp_path))
    assert sum(line.startswith("FAIL") for line in lines) == status
    assert ("all criteria above are met" in last) == (status == 0)


def test_the_command_names_a_run_that_is_not_there(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "metrics.json: no such file" in capsys.readouterr().err
