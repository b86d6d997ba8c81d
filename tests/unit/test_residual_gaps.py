"""The benchmark of residual gaps says how far each rate is from its target, and answers an audit by the truth."""

from __future__ import annotations

import pandas as pd
import pytest

from experiments import residual_gaps, runs
from experiments.residual_gaps import ROUNDS, distances, main
from experiments.runs import answer_by_truth
from pipeline_lib.config import load_config
from pipeline_lib.data.tables import write_table
from pipeline_lib.runtime.files import read_json


def targets_of(*rates):
    groups = ("long_hair", "not long_hair")
    return [
        {"group": group, "attribute": "smiling", "target": 0.4, "rate": {"value": rate}, "edited": 10, "verdict": "met"}
        for group, rate in zip(groups, rates, strict=True)
    ]


def test_distances_are_from_what_was_asked_for():
    found = distances([targets_of(0.41, 0.38), targets_of(0.40, 0.40)])
    assert found["long hair: smiling"] == pytest.approx([0.01, 0.0])
    assert found["not long hair: smiling"] == pytest.approx([-0.02, 0.0])
    assert found["gap of the first two"] == pytest.approx([0.03, 0.0])


def test_the_answers_are_the_truth_of_the_images_drawn(tmp_path, monkeypatch):
    names = ["a", "b", "c"]
    truth = pd.DataFrame(
        {"image_id": names, "split": "train", "smiling": [True, False, True], "long_hair": [False] * 3}
    )
    write_table(tmp_path / "labels/dataset_rebalanced_true.parquet", "labels", truth)
    drawn = pd.DataFrame({"image_id": ["c", "b"], "dataset": "digest", "edit": "e"})
    monkeypatch.setattr(runs.Sheet, "draw", lambda sheet: drawn)
    rows = answer_by_truth(load_config("config/config.yaml"), tmp_path, 2, 1)
    assert rows["smiling"].tolist() == [1, 0] and rows["long_hair"].tolist() == [0, 0]


def test_a_missed_target_is_counted(monkeypatch, tmp_path, capsys):
    missed = [target | {"verdict": "missed"} for target in targets_of(0.5, 0.5)]
    rounds = dict(zip(ROUNDS, (missed, targets_of(0.41, 0.40)), strict=True))
    monkeypatch.setattr(residual_gaps, "run_seed", lambda *arguments: rounds)
    output = tmp_path / "found.json"
    assert main(["--seeds", "0", "1", "2", "--output", str(output)]) == 1
    assert "6 of 12 targets missed" in capsys.readouterr().out
    assert read_json(output)[ROUNDS[1]]["long hair: smiling"]["mean"]["value"] == pytest.approx(0.01)
