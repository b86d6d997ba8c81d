"""A choice made again from the tables alone is the run's own, and other rules do what they say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.config import RateRule, Rebalance
from pipeline_lib.data.tables import read_tables, write_table
from pipeline_lib.editing.choice import choose_best
from pipeline_lib.editing.replay import replay, yields_of
from pipeline_lib.runtime.errors import DataError

FACES, TRIED = 20, 6
TARGETS = [RateRule(where={"long_hair": value}, attribute="smiling", rate=0.5) for value in (True, False)]
SETTINGS = Rebalance(targets=TARGETS, edit={"candidates": TRIED, "pool": 12, "seam_tolerance": 0.2})


@pytest.fixture
def results(tmp_path):
    """Return the folder of a run with candidates of random scores, chosen as a run does."""
    random = np.random.default_rng(0)
    logit, seam = random.normal(0, 3, (FACES, TRIED)), random.random((FACES, TRIED))
    in_group, wanted = random.random((FACES, TRIED)) < 0.7, np.arange(FACES) % 2 == 0
    logit, seam = logit.astype(np.float32), seam.astype(np.float32)
    strength = np.where(in_group, np.where(wanted[:, None], logit, -logit), -np.inf)
    best = choose_best(torch.tensor(strength), torch.tensor(seam), SETTINGS.edit).numpy()
    success = strength > 0
    chosen = np.zeros_like(success)
    np.put_along_axis(chosen, best, np.take_along_axis(success, best, axis=1), axis=1)
    names = [f"image-{number:02d}" for number in range(FACES)]
    table = pd.DataFrame(
        {
            "image_id": np.repeat(names, TRIED),
            "candidate": np.tile(np.arange(TRIED, dtype=np.int16), FACES),
            "donor_id": [f"donor-{number % 17}" for number in range(FACES * TRIED)],
            "logit": logit.flatten(),
            "in_group": in_group.flatten(),
            "seam": seam.flatten(),
            "success": success.flatten(),
            "chosen": chosen.flatten(),
            "masked_l1": np.float32(0.1),
        }
    )
    (tmp_path / "swaps/dataset").mkdir(parents=True)
    # the referee confirms what an even donor gives, and sees the group kept by the first ten donors alone
    donor = table["donor_id"].str[6:].astype(int)
    judged = table[["image_id", "candidate", "donor_id"]].assign(
        smiling=np.where((donor % 2 == 0) == np.repeat(wanted, TRIED), 0.9, 0.1),
        long_hair=np.where((donor < 10) == (np.arange(FACES * TRIED) < 12 * TRIED), 0.9, 0.1),
    )
    for shard, rows in enumerate((slice(8 * TRIED), slice(8 * TRIED, None))):
        write_table(tmp_path / f"swaps/dataset/{shard}.candidates.parquet", "candidates", table.iloc[rows])
        write_table(tmp_path / f"swaps/dataset/{shard}.judged.parquet", "judged", judged.iloc[rows])
    plan = pd.DataFrame({"image_id": names, "position": range(FACES), "target": [0] * 12 + [1] * 8})
    (tmp_path / "plan").mkdir()
    write_table(tmp_path / "plan/dataset.parquet", "plan", plan.assign(attribute="smiling", wanted=wanted))
    return tmp_path


def own(results):
    return read_tables(sorted((results / "swaps/dataset").glob("*.candidates.parquet")), "candidates")


def test_under_the_runs_own_rules_it_is_the_runs_own_choice(results):
    pd.testing.assert_frame_equal(replay(results, "dataset", SETTINGS), own(results))


def test_fewer_candidates_are_those_with_the_least_seam(results):
    found = replay(results, "dataset", SETTINGS, candidates=2)
    assert (found.groupby("image_id").size() == 2).all()
    clamped = own(results).assign(seam=lambda table: table["seam"].clip(lower=SETTINGS.edit.seam_tolerance))
    least = clamped.sort_values("seam", kind="stable").groupby("image_id", sort=True).head(2).sort_index()
    assert found["donor_id"].tolist() == least["donor_id"].tolist()
    assert found["chosen"].sum() <= own(results)["chosen"].sum()


def test_a_stricter_threshold_and_a_veto_leave_fewer_edits(results):
    made = [
        replay(results, "dataset", SETTINGS, **rules)["chosen"].sum()
        for rules in ({"veto": False}, {}, {"threshold": 0.9}, {"threshold": 0.9999})
    ]
    assert made == sorted(made, reverse=True)
    assert made[0] > made[-1]
    strict = replay(results, "dataset", SETTINGS, threshold=0.9)
    assert strict.loc[strict["chosen"], "logit"].abs().min() > np.log(9)


def test_the_strongest_is_taken_if_the_rule_says_so(results):
    found = replay(results, "dataset", SETTINGS, choose="strongest", veto=False)
    most = found.groupby("image_id")["logit"].transform(lambda logits: logits.abs().max())
    sure = found[found["chosen"]]
    assert (sure["logit"].abs() <= most[sure.index]).all()
    even = sure["image_id"].str[-2:].astype(int) % 2 == 0  # of these a smile is wanted, so the largest logit
    largest = found.groupby("image_id")["logit"].transform("max")
    assert (sure.loc[even, "logit"] == largest[sure.index][even]).all()


def test_edits_are_counted_by_target(results):
    table = yields_of(results, "dataset", SETTINGS, own(results))
    assert table["group"].tolist() == ["long_hair", "not long_hair"]
    assert table["edits"].tolist() == [12, 8]
    assert table["made"].sum() == own(results)["chosen"].sum()


def test_the_referee_says_which_of_the_edits_are_right_in_value_and_group(results):
    for rules in ({}, {"candidates": 2, "veto": False}):
        chosen = replay(results, "dataset", SETTINGS, **rules)
        table = yields_of(results, "dataset", SETTINGS, chosen)
        taken = chosen[chosen["chosen"]]
        donor = taken["donor_id"].str[6:].astype(int)
        right = (donor % 2 == 0) & (donor < 10)
        of_first = taken["image_id"].str[-2:].astype(int) < 12
        assert table["confirmed by referee"].tolist() == pytest.approx(
            [right[of_first].mean(), right[~of_first].mean()]
        )
        assert 0 < right.mean() < 1
        without = yields_of(results, "dataset", SETTINGS, chosen, by_referee=False)
        pd.testing.assert_frame_equal(without, table.drop(columns="confirmed by referee"))


def test_the_referees_scores_must_be_those_of_the_candidates(results):
    chosen = replay(results, "dataset", SETTINGS)
    (results / "swaps/dataset/1.judged.parquet").unlink()
    with pytest.raises(DataError, match="the referee scored other candidates than the tables of candidates hold"):
        yields_of(results, "dataset", SETTINGS, chosen)
    (results / "swaps/dataset/0.judged.parquet").unlink()
    with pytest.raises(DataError, match=r"no scores of the candidates by the referee .*; run the workflow with"):
        yields_of(results, "dataset", SETTINGS, chosen)


@pytest.mark.parametrize(
    ("settings", "candidates", "message"),
    [
        ({}, 7, "7 candidates: the run tried 6 for each face"),
        ({}, 0, "0 candidates: the run tried 6"),
        ({"pool": None}, 3, "without `rebalance.edit.pool` that many draw other donors"),
        ({"seam_tolerance": 0.9}, None, "does not give the run's own choice for"),
        ({"refine": 5}, None, "scores of refined edits replaced those that they were chosen by"),
    ],
)
def test_what_the_tables_cannot_answer_is_refused(results, settings, candidates, message):
    with pytest.raises(DataError, match=message):
        replay(
            results,
            "dataset",
            SETTINGS.model_copy(update={"edit": SETTINGS.edit.model_copy(update=settings)}),
            candidates=candidates,
        )
    with pytest.raises(DataError, match="no candidates; run the workflow first"):
        replay(results, "samples", SETTINGS)
