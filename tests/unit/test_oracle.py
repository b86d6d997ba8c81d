"""The benchmark of the certificate plants what it says, and sees a certificate that is wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments import oracle
from experiments.oracle import Found, Oracle, check_found, run_trials
from pipeline_lib.audit.estimate import Estimate
from pipeline_lib.config import RateRule, load_config
from pipeline_lib.data.tables import write_table
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.files import read_json

TARGETS = [RateRule(where={"hat": value}, attribute="smiling", rate=0.5) for value in (True, False)]
EDITED = 300  # of each group's 1,000 images


@pytest.fixture
def edits(tmp_path):
    """Return 2,000 rebalanced images, of which 300 lose their smile in one group and get one in the other."""
    names = [f"{number}" for number in range(2000)]
    hat = np.arange(2000) < 1000
    smiling = np.arange(2000) % 1000 < np.where(hat, 800, 200)
    labels = pd.DataFrame({"image_id": names, "split": "train", "hat": hat, "smiling": smiling})
    taken = np.concatenate([np.flatnonzero(hat & smiling)[:EDITED], np.flatnonzero(~hat & ~smiling)[:EDITED]])
    edited = np.isin(np.arange(2000), taken)
    plan = pd.DataFrame(
        {
            "image_id": np.array(names)[taken], "position": taken, "target": np.repeat([0, 1], EDITED),
            "attribute": "smiling", "wanted": ~hat[taken] & ~smiling[taken],
        }
    )  # fmt: skip
    write_table(tmp_path / "labels/dataset.parquet", "labels", labels)
    write_table(
        tmp_path / "labels/dataset_rebalanced.parquet", "assembled", labels.drop(columns="split").assign(edited=edited)
    )
    write_table(tmp_path / "plan/dataset.parquet", "plan", plan)
    donors = [f"{number // 3}" for number in range(2 * EDITED)]
    tried = {"image_id": plan["image_id"], "candidate": 0, "donor_id": donors, "chosen": True, "success": True}
    figures = dict.fromkeys(("logit", "seam", "masked_l1"), 0.0)
    write_table(
        tmp_path / "swaps/dataset/0.candidates.parquet",
        "candidates",
        pd.DataFrame(tried | figures | {"in_group": True}),
    )
    return Oracle(tmp_path, TARGETS)


def test_rates_are_those_of_the_planted_failures(edits):
    random = seeding.numpy_generator(0, "test")
    np.testing.assert_allclose(edits.rates(edits.plant([(0, 0), (0, 0)], random)), [0.5, 0.5])
    np.testing.assert_allclose(edits.rates(edits.plant([(1, 0), (0, 0)], random)), [0.8, 0.5])
    # All 300 edits of the first group, which no longer smile, go to the second.
    np.testing.assert_allclose(edits.rates(edits.plant([(0, 1), (0, 0)], random)), [500 / 700, 500 / 1300])


def test_edits_with_the_same_donor_fail_together(edits):
    shown = edits.plant([(0.5, 0), (0.5, 0)], seeding.numpy_generator(0, "test"), by_donor=True)
    succeeded = (shown["smiling"].to_numpy(bool) == edits.edits["wanted"].to_numpy()).reshape(-1, 3)
    assert (succeeded.all(axis=1) | ~succeeded.any(axis=1)).all()
    assert 0.3 < succeeded.mean() < 0.7


def test_the_best_width_is_that_of_a_stratified_sample(edits):
    share, audited = 0.1, 100
    expected = 2 * 1.96 * 0.3 * np.sqrt(share * (1 - share) / audited * (1 - audited / EDITED))
    assert edits.best_width([(share, 0), (0.02, 0.08)], 2 * audited, np.array([1, 0])) == pytest.approx(expected)
    assert edits.best_width([(0, 0)], 2 * audited, np.array([0, 1])) == pytest.approx(0.3 * 3 / audited)


@pytest.mark.long
def test_the_certificate_does_what_it_says(edits):
    found = run_trials(edits, ((0.1, 0.01), (0.01, 0.0)), 400, 200, 0.03)
    assert found.covered >= 0.9  # 0.95 less three standard errors
    assert found.width <= 1.5
    assert found.false_met <= 0.07
    assert 0 < found.error <= 0.015


def test_a_certificate_that_takes_every_edit_for_right_is_seen(edits, monkeypatch):
    sure = Estimate(0.5, 0.49, 0.51)
    monkeypatch.setattr(oracle.EditedDataset, "estimate", lambda *arguments: sure)
    found = run_trials(edits, ((0.3, 0.0), (0.0, 0.0)), 100, 5, 0.03)
    covered, width, false_met, error = check_found(found, 500)
    assert not covered.passed and not error.passed
    assert width.passed and false_met.passed


def test_without_enough_labels_the_gap_is_not_judged():
    assert len(check_found(Found(1, 1, 0, 1), 100)) == 3


def test_the_command_prints_a_row_for_each_pattern_and_number_of_labels(edits, tmp_path, monkeypatch, capsys):
    config = load_config("config/config.yaml")
    (tmp_path / "results/avatars/labels").mkdir(parents=True)
    (tmp_path / "results/avatars/labels/dataset_rebalanced.parquet").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(oracle, "load_config", lambda path: config)
    monkeypatch.setattr(oracle, "Oracle", lambda results, targets: edits)
    oracle.main(["--trials", "2", "--output", "found.json"])
    assert len(read_json("found.json")["found"]) == len(oracle.PLANTED) * len(oracle.LABELS)
    assert next(iter(oracle.PLANTED)) in capsys.readouterr().out
