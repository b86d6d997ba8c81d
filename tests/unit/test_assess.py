"""Rates, gaps, agreement and counts of edits equal what one counts by hand."""

from __future__ import annotations

import logging
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from pipeline_lib.config import Detectors, Evaluate, RateRule, Rebalance
from pipeline_lib.config.names import IMAGE_SETS
from pipeline_lib.data.tables import SCHEMAS, read_table, write_table
from pipeline_lib.evaluation.bias import evaluate_bias
from pipeline_lib.evaluation.edits import evaluate_edits
from pipeline_lib.evaluation.ledger import ledger_of
from pipeline_lib.evaluation.metrics import BY_IMAGE_SET, SECTIONS, collect_metrics
from pipeline_lib.evaluation.results import Leakage
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import read_json, write_json
from tests.unit.made_results import MEASURED, NO_NETWORK, RATES, results_of

TARGETS = Rebalance(
    targets=[RateRule(where={"long_hair": value}, attribute="smiling", rate=0.5) for value in (True, False)]
)
PLANNED = {"group": "all", "attribute": "smiling", "rate_before": 0.4, "rate_wanted": 0.5, "edits": 2, "size": 3}
LONG, SHORT = "long_hair", "not long_hair"
# By group: images that smile, and images in all.
COUNTS = {stage: {LONG: (16 - number, 20), SHORT: (4 + number, 20)} for number, stage in enumerate(IMAGE_SETS)}


def table_of(counts):
    """Return what a judge who is never wrong says of images of which so many smile in each group."""
    rows = [(group == LONG, place < smiling) for group, (smiling, n) in counts.items() for place in range(n)]
    table = pd.DataFrame(rows, columns=["long_hair", "smiling"])
    table.insert(0, "image_id", [f"image-{number:03d}" for number in range(len(table))])
    return table


def probabilities(table, wrong=()):
    scores = table.copy()
    for name in ("long_hair", "smiling"):
        scores[name] = np.where(table[name], 0.9, 0.2).astype(np.float32)
    scores.loc[list(wrong), "smiling"] = 1 - scores.loc[list(wrong), "smiling"]
    return scores


def wilson(positives, n):
    z = NormalDist().inv_cdf(0.975)
    centre, spread = positives + z * z / 2, z * np.sqrt(positives * (n - positives) / n + z * z / 4)
    return (centre - spread) / (n + z * z), (centre + spread) / (n + z * z)


@pytest.fixture
def evaluate(tmp_path):
    """Return a function that runs the stage, the selector being wrong about the images at some positions."""

    def run(
        wrong=(),
        counts=COUNTS,
        edits_are_known=False,
        truth_counts=True,
        shuffled=False,
        hide=None,
    ):
        def write(name, kind, table):
            table = table.sample(frac=1, random_state=len(name)) if shuffled else table
            write_table(tmp_path / name, kind, table)
            return tmp_path / name

        def labelled(table):
            table = table.assign(split="train")[["image_id", "split", "long_hair", "smiling"]]
            return hide(table.astype({"long_hair": "boolean", "smiling": "boolean"})) if hide else table

        held_out = table_of({LONG: (100, 200), SHORT: (100, 200)})
        tables = {stage: table_of(counts[stage]) for stage in counts}
        write_json(tmp_path / "checked.json", {"counts": truth_counts})
        evaluate_bias(
            checked=[tmp_path / "checked.json"] * edits_are_known,
            truth=write("dataset", "labels", labelled(tables["dataset"])),
            rebalanced_truth=[write("true", "labels", labelled(tables["dataset_rebalanced"]))] * edits_are_known,
            held_out_truth=write("held_out", "labels", labelled(held_out)),
            held_out_referee=write("held_out_referee", "scores", probabilities(held_out, range(0, 400, 8))),
            selector=[write(f"selector/{name}", "scores", probabilities(tables[name], wrong)) for name in counts],
            referee=[write(f"referee/{name}", "scores", probabilities(tables[name])) for name in counts],
            targets=TARGETS,
            detectors=Detectors(attributes=["smiling", "long_hair"]),
            settings=Evaluate(),
            run="toy",
            seed=0,
            bias=tmp_path / "bias.parquet",
            gaps=tmp_path / "gaps.json",
            agreement=tmp_path / "agreement.json",
            kappa=tmp_path / "kappa.json",
        )
        bias = read_table(tmp_path / "bias.parquet", "bias")
        (gaps,) = read_json(tmp_path / "gaps.json").values()  # of the only attribute
        return bias, gaps, read_json(tmp_path / "agreement.json")

    return run


@pytest.mark.parametrize("known", [["dataset"], ["dataset", "dataset_rebalanced"]])
def test_rates_and_their_intervals_are_those_counted_by_hand(evaluate, known):
    bias, _, _ = evaluate(edits_are_known=len(known) > 1)
    rates = bias.set_index(["stage", "judge", "group"])
    for stage, groups in COUNTS.items():
        for judge in ("truth", "selector", "referee"):
            for group, (smiling, n) in groups.items():
                if judge == "truth" and stage not in known:
                    assert (stage, judge, group) not in rates.index
                    continue
                row = rates.loc[(stage, judge, group)]
                assert (row["n"], row["rate"], row["attribute"]) == (n, smiling / n, "smiling")
                assert (row["ci_low"], row["ci_high"]) == pytest.approx(wilson(smiling, n))


def test_the_truth_of_edits_is_no_source_of_labels_where_it_does_not_count(evaluate):
    bias, gaps, _ = evaluate(edits_are_known=True, truth_counts=False)
    assert set(bias.loc[bias["judge"] == "truth", "stage"]) == {"dataset"}
    assert "truth" not in gaps["dataset_rebalanced"]


def test_gaps_are_the_first_groups_rate_minus_the_seconds(evaluate):
    _, gaps, _ = evaluate(edits_are_known=True)
    assert list(gaps) == sorted(IMAGE_SETS)
    assert set(gaps["dataset"]) == {"truth", "selector", "referee", "corrected"}
    assert gaps["dataset_rebalanced"]["truth"] == gaps["dataset_rebalanced"]["referee"]
    assert set(gaps["samples"]) == {"selector", "referee", "corrected"}
    for number, stage in enumerate(IMAGE_SETS):
        for judge in ("selector", "referee"):
            found = gaps[stage][judge]
            assert found["value"] == pytest.approx((12 - 2 * number) / 20)
            assert found["ci"][0] < found["value"] < found["ci"][1]


def test_a_perfect_referee_is_hardly_corrected(evaluate):
    bias, gaps, _ = evaluate()
    corrected = bias[bias["judge"] == "corrected"].set_index(["stage", "group"])["rate"]
    referee = bias[bias["judge"] == "referee"].set_index(["stage", "group"])["rate"]
    pd.testing.assert_series_equal(corrected, referee, atol=1e-9)
    for stage in IMAGE_SETS:
        assert gaps[stage]["corrected"]["value"] == pytest.approx(gaps[stage]["referee"]["value"], abs=1e-6)


def test_agreement_is_the_share_of_images_on_which_the_detectors_agree(evaluate, caplog):
    caplog.set_level(logging.WARNING)
    _, gaps, agreement = evaluate(wrong=[0, 1, 20])
    assert agreement == {stage: {"smiling": 37 / 40, "long_hair": 1.0} for stage in IMAGE_SETS}
    assert len(caplog.records) == len(IMAGE_SETS)
    assert "agree on `smiling` in 0.925 of `dataset`, less than 0.95" in caplog.records[0].message
    # Of the long-haired of the dataset 16 of 20 smile; the selector misses two, and of the others one more smiles not.
    assert gaps["dataset"]["selector"]["value"] == pytest.approx(14 / 20 - 3 / 20)
    caplog.clear()
    evaluate(wrong=[0])
    assert not caplog.records


def test_the_order_of_rows_changes_nothing(evaluate):
    """The referee is wrong about every eighth held-out image, all of the half that it was calibrated on."""
    (bias, *others), (same, *other) = evaluate(wrong=[0, 1, 20]), evaluate(wrong=[0, 1, 20], shuffled=True)
    pd.testing.assert_frame_equal(bias, same)
    assert others == other


def test_agreement_beyond_chance_is_counted_in_each_group(evaluate, tmp_path):
    evaluate(wrong=[0, 1, 20])  # of the dataset two of the long-haired of whom the others have 16 of 20 smiles
    found = read_json(tmp_path / "kappa.json")["dataset"]["smiling"]
    says = np.arange(20) < 16
    kappa = cohen_kappa_score(says, np.where(np.arange(20) < 2, ~says, says))
    assert found[LONG] == {"n": 20, "agree": 18, "kappa": pytest.approx(kappa)}
    assert found[SHORT]["agree"] == 19
    evaluate(counts=COUNTS | {"retrained": {LONG: (20, 20), SHORT: (0, 0)}})
    found = read_json(tmp_path / "kappa.json")["retrained"]["smiling"]
    assert found == {LONG: {"n": 20, "agree": 20, "kappa": None}, SHORT: {"n": 0, "agree": 0, "kappa": None}}


def test_images_of_unknown_truth_are_not_counted(evaluate):
    def hide(table):
        table.loc[[0, 1, 2, 19], "smiling"] = pd.NA  # of the long-haired of the dataset three who smile, and one other
        table.loc[20, "long_hair"] = pd.NA  # a smile
        return table

    rates = evaluate(hide=hide)[0].set_index(["stage", "judge", "group"])
    assert rates.loc[("dataset", "truth", LONG), ["n", "rate"]].tolist() == [16, 13 / 16]
    assert rates.loc[("dataset", "truth", SHORT), ["n", "rate"]].tolist() == [19, 3 / 19]
    assert rates.loc[("dataset", "referee", LONG), "n"] == 20


def test_only_the_image_sets_that_are_given_are_judged(evaluate):
    bias, gaps, agreement = evaluate(counts={name: COUNTS[name] for name in ("dataset", "dataset_rebalanced")})
    assert set(bias["stage"]) == set(gaps) == set(agreement) == {"dataset", "dataset_rebalanced"}
    assert gaps["dataset_rebalanced"]["referee"]["value"] == pytest.approx((12 - 2 * 3) / 20)


def test_a_group_that_nobody_is_in_has_no_gap(evaluate):
    empty = COUNTS | {"retrained": {LONG: (16, 40), SHORT: (0, 0)}}
    bias, gaps, _ = evaluate(counts=empty)
    assert gaps["retrained"]["referee"] == {"value": None, "ci": [None, None]}
    row = bias[(bias["stage"] == "retrained") & (bias["judge"] == "referee") & (bias["group"] == SHORT)].iloc[0]
    assert row["n"] == 0
    assert np.isnan(row["rate"])


def count_edits(folder, chosen, referee):
    """Run the stage on two planned images with two candidates each."""
    candidates = pd.DataFrame(
        {
            "image_id": ["a", "a", "b", "b"],
            "candidate": [0, 1, 0, 1],
            "donor_id": ["c", "d", "c", "d"],
            "logit": [1.0, 2.0, -1.0, 3.0],
            "in_group": True,
            "seam": 0.2,
            "success": [True, True, True, False],
            "chosen": chosen,
            "masked_l1": [0.5, 0.1, 0.3, 0.5],
        }
    )
    tables = [folder / f"{shard}.parquet" for shard in range(2)]
    for shard, table in enumerate(tables):
        write_table(table, "candidates", candidates.iloc[2 * shard : 2 * shard + 2])
    plan = pd.DataFrame({"image_id": ["a", "b"], "position": [0, 1], "target": 0, "attribute": "smiling"})
    write_table(folder / "plan.parquet", "plan", plan.assign(wanted=[True, False]))
    scores = pd.DataFrame({"image_id": ["b", "a", "c"], "smiling": np.float32(referee)})
    write_table(folder / "scores.parquet", "scores", scores.assign(long_hair=np.float32([0.9, 0.2, 0.1])))
    before = pd.DataFrame({"image_id": ["a", "b", "c"], "smiling": np.float32(0.4)})
    write_table(folder / "before.parquet", "scores", before.assign(long_hair=np.float32([0.1, 0.2, 0.9])))
    write_json(folder / "plan.json", {"targets": [PLANNED]})
    evaluate_edits(
        candidates=tables,
        plan=folder / "plan.parquet",
        referee_scores=folder / "scores.parquet",
        scores_before=folder / "before.parquet",
        summary=folder / "plan.json",
        settings=Rebalance(
            targets=[RateRule(where={"long_hair": value}, attribute="smiling", rate=0.5) for value in (True, False)]
        ),
        edits=folder / "edits.json",
    )
    return read_json(folder / "edits.json")


def test_edits_are_counted_by_selector_and_referee(tmp_path):
    edits = count_edits(tmp_path, chosen=[False, True, True, False], referee=[0.7, 0.9, 0.9])
    assert edits == {
        "planned": 2,
        "candidates": 4,
        "candidates_successful": 3,
        "succeeded_by_selector": 2,
        "replaced": 0,
        "succeeded_by_referee": 1,  # `b` was wanted without a smile, and the referee sees one
        "share_by_selector": 1.0,
        "share_by_referee": 0.5,
        "share_in_their_group_by_referee": 0.5,  # `b` had short hair
        "masked_l1": pytest.approx(0.2),
        "targets": [PLANNED],
        "ledger": edits["ledger"],
    }


def test_the_ledger_counts_donors_and_other_attributes_by_target(tmp_path):
    first, second = count_edits(tmp_path, chosen=[False, True, True, False], referee=[0.7, 0.9, 0.9])["ledger"]
    assert (first["group"], first["planned"], first["made"]) == ("long_hair", 2, 2)
    assert (first["share_without_success"], first["share_successful"], first["share_vetoed"]) == (0, 0.75, 0)
    assert first["share_confirmed"] == 0.5
    assert (first["donors"], first["effective_donors"], first["most_uses"]) == (2, 2, 1)
    assert first["changed"] == {"long_hair": {"share": 0.5, "towards": 0.5}}  # `b` has long hair now
    assert second == second | {"planned": 0, "made": 0, "share_vetoed": None, "effective_donors": 0, "changed": {}}


def test_donors_that_are_used_unequally_count_as_fewer():
    names = [f"image-{number}" for number in range(8)]
    tried = pd.DataFrame({"image_id": names, "donor_id": list("aaaaabcd"), "success": True, "chosen": True})
    scores = pd.DataFrame({"smiling": 0.9}, index=names)
    plan = pd.DataFrame({"image_id": names, "target": 0, "wanted": True})
    tried = tried.assign(in_group=[True] * 6 + [False] * 2)
    entry = ledger_of(tried, plan, plan, scores, scores, TARGETS.targets)[0]
    assert entry.effective_donors == pytest.approx(64 / 28)
    assert (entry.donors, entry.most_uses, entry.share_vetoed) == (4, 5, 0.25)
    entry = ledger_of(tried, plan.iloc[:6], plan, scores, scores, TARGETS.targets)[0]  # the last two are spares
    assert (entry.planned, entry.made, entry.donors, entry.share_vetoed) == (6, 8, 4, 0)


def test_edits_that_all_failed_count_as_none(tmp_path):
    edits = count_edits(tmp_path, chosen=[False] * 4, referee=[0.1, 0.9, 0.9])
    assert (edits["succeeded_by_selector"], edits["succeeded_by_referee"], edits["share_by_referee"]) == (0, 0, 0)
    assert edits["masked_l1"] is None


@pytest.mark.parametrize("rates", [RATES, NO_NETWORK])
def test_every_figure_ends_in_one_file(evaluate, tmp_path, rates):
    bias, _, _ = evaluate()
    found = results_of(rates)
    measured = MEASURED | {"extractor": "alex"}
    quality = pd.DataFrame([{"stage": "dataset", "metric": "coverage", "value": 0.5} | measured])
    write_table(tmp_path / "quality.parquet", "quality", quality[SCHEMAS["quality"].names])
    named = {name: found[section] for name, (section, _) in SECTIONS.items()}
    named |= {f"{kind}-{name}": found[kind][name] for kind in BY_IMAGE_SET for name in found[kind]}
    results = {name: value for name, value in named.items() if value}
    reports = found["detectors"] | {"segmenter": found["segmenter"]}
    for name, value in (results | reports).items():
        write_json(tmp_path / f"{name}.json", value)
    (tmp_path / "benchmarks/swap_parts").mkdir(parents=True)
    (tmp_path / "benchmarks/train_encoder.tsv").write_text("s\th:m:s\n12.5\t0:00:12\n")
    (tmp_path / "benchmarks/swap_parts/samples-0.tsv").write_text("s\th:m:s\n3.25\t0:00:03\n")
    collect_metrics(
        bias=tmp_path / "bias.parquet",
        quality=tmp_path / "quality.parquet",
        results=[tmp_path / f"{name}.json" for name in results],
        reports=[tmp_path / f"{name}.json" for name in reports],
        benchmarks=tmp_path / "benchmarks",
        metrics=tmp_path / "metrics.json",
    )
    metrics = read_json(tmp_path / "metrics.json")
    measured_here = {"rate", "quality", "timing"}
    assert {name: metrics[name] for name in set(found) - measured_here} == {
        name: value for name, value in found.items() if name not in measured_here
    }
    assert metrics["quality"] == {"dataset": {"coverage": {"value": 0.5, **measured}}}
    assert metrics["timing"] == {"train_encoder": 12.5, "swap_parts/samples-0": 3.25}
    for row in bias.itertuples():
        rate = metrics["rate"]["smiling"][row.stage][row.judge][row.group]
        assert (rate["value"], rate["n"]) == (pytest.approx(row.rate, abs=1e-6), row.n)


def test_a_result_of_another_version_is_named_with_its_key(tmp_path):
    write_json(tmp_path / "leakage-dataset.json", {"cells": {}})
    with pytest.raises(DataError, match=r"leakage-dataset.json: left_out: .*; it is of another version"):
        Leakage.read(tmp_path / "leakage-dataset.json")
