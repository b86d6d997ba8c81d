"""A plan is known, with its cost and what an audit could show, before anything is edited."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pipeline_lib.audit.classes import Classes
from pipeline_lib.audit.dataset import EditedDataset, Stratum
from pipeline_lib.audit.estimate import Verdict, decide
from pipeline_lib.audit.forecast import forecast, print_forecast
from pipeline_lib.cli import main
from pipeline_lib.config import RateRule, parse_config
from pipeline_lib.data.tables import write_table
from pipeline_lib.rebalance.plan import Audited
from pipeline_lib.runtime.errors import DataError

TARGETS = [{"where": {"long_hair": value}, "attribute": "smiling", "rate": 0.5} for value in (True, False)]
SIZE = 1000  # images of each group, 800 and 200 of which smile
OPTIONS = dict(failing=[0.0, 0.0], labels=200, confidence=0.95, seed=0)


def dataset():
    number = np.arange(2 * SIZE)
    return {"long_hair": number < SIZE, "smiling": np.where(number < SIZE, number % 10 < 8, number % 10 < 2)}


def run(**changed):
    return forecast(dataset(), [RateRule(**target) for target in TARGETS], [0.03, 0.03], **OPTIONS | changed)


def test_the_edits_are_those_of_the_plan():
    first, second = run()
    wanted = {"attribute": "smiling", "size": SIZE, "rate_wanted": 0.5, "edits": 300}
    assert first.count == wanted | {"group": "long_hair", "rate_before": 0.8}
    assert second.count == wanted | {"group": "not long_hair", "rate_before": 0.2}


def test_edits_that_fail_leave_the_rate_on_the_side_where_it_was():
    first, second = run(failing=[0.05] * 2, labels=600)  # every edit is audited, so the rates are known
    assert (first.after.low, first.after.high) == (0.515, 0.515)
    assert (second.after.low, second.after.high) == (0.485, 0.485)
    assert first.verdict is second.verdict is Verdict.MET
    assert run(failing=[0.2] * 2, labels=600)[0].verdict is Verdict.MISSED


def test_the_labels_that_are_said_to_be_enough_are_in_four_of_five_audits():
    needed = run(failing=[0.04] * 2)[0].labels
    assert 32 <= needed < 600
    classes, random = Classes([RateRule(**target) for target in TARGETS]), np.random.default_rng(0)

    def class_of(hair, smiling):
        return int(classes.of({"long_hair": np.array([hair]), "smiling": np.array([smiling])})[0])

    kept = np.zeros(len(classes), int)
    kept[[class_of(hair, smiling) for hair in (True, False) for smiling in (True, False)]] = 500, 200, 200, 500

    def met(labels):
        """Return how often the first target is met if 12 of the 300 edits of each have failed."""
        verdicts = []
        for _ in range(100):
            strata = []
            for hair in (True, False):
                origin, planned = class_of(hair, hair), class_of(hair, not hair)
                edits = np.where(np.arange(300) < 12, origin, planned)
                strata.append(Stratum(origin, planned, 300, random.choice(edits, labels // 2, replace=False)))
            found = EditedDataset(classes, kept, strata, (1, 0)).estimate(0.95, random, draws=400)
            verdicts.append(decide(found, 0.5, 0.03) is Verdict.MET)
        return np.mean(verdicts)

    assert met(needed) >= 0.7  # 0.8, and 2.5 standard errors of 100 trials less
    assert met(needed // 2) < 0.8


def test_a_large_group_whose_edits_may_leave_it_makes_a_small_one_uncertain():
    """As in the certificate: of 3,000 edits of the large group a few may be in the small one now."""
    number = np.arange(10_200)
    small = number < 200
    holds = {"long_hair": small, "smiling": np.where(small, number % 4 == 0, number % 10 < 2)}
    found = forecast(
        holds, [RateRule(**target) for target in TARGETS], [0.03, 0.03], **OPTIONS | {"failing": [0.02] * 2}
    )
    assert found[0].after.high - found[0].after.low > 0.05
    assert found[0].verdict is Verdict.UNKNOWN


def test_a_balanced_group_needs_nothing():
    holds = {"long_hair": np.arange(8) < 4, "smiling": np.arange(8) % 2 == 0}
    found = forecast(holds, [RateRule(**TARGETS[0])], [0.03], **OPTIONS)[0]
    assert (found.count["edits"], found.labels, found.verdict) == (0, 0, Verdict.MET)


def test_the_table_says_what_it_costs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parse_config(
        {
            "run": "mine",
            "rebalance": {"targets": TARGETS, "edit": {"editor": "poisson", "candidates": 4}},
            "retrain": None,
        }
    )
    with pytest.raises(DataError, match=r"results/mine/labels/dataset.parquet: no labels yet; make them with"):
        print_forecast(config, 0.02, 200)
    names = [f"image-{number}" for number in range(2 * SIZE)]
    table = pd.DataFrame({"image_id": names, "split": "train", **dataset()})
    write_table(tmp_path / "results/mine/labels/dataset.parquet", "labels", table)
    printed = io.StringIO()
    print_forecast(config, 0.02, 200, Console(file=printed, width=160))
    text = printed.getvalue()
    assert "If 2.0% of the edits fail, and 200 are audited" in text
    assert "600 of 2,000 images are to be edited, with 2,400 candidates." in text
    assert text.count("300") == 2


def test_a_share_that_is_none_is_refused(capsys):
    assert main(["plan", "--failing", "2"]) == 2
    assert "`--failing` is a share from 0 to 1" in capsys.readouterr().err


def test_a_plan_by_an_audit_is_forecast_to_fail_as_that_did_and_to_end_at_its_target():
    audited = [Audited(50, 45), Audited(50, 50)]
    first, second = run(failing=[0.1, 0.0], audited=audited, labels=800)
    assert (first.count["edits"], second.count["edits"]) == (333, 300)
    assert first.after.low == pytest.approx(0.501)  # 34 of 333 fail
    assert first.verdict is second.verdict is Verdict.MET
    assert run(failing=[0.1, 0.0], labels=800)[0].after.low == pytest.approx(0.53)
