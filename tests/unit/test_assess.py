"""Rates, gaps, agreement and counts of edits equal what one counts by hand."""

from __future__ import annotations

import logging
from dataclasses import fields
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from pipeline_lib.audit.estimate import Interval
from pipeline_lib.config import Detectors, Evaluate, RateRule, Rebalance
from pipeline_lib.config.names import IMAGE_SETS
from pipeline_lib.data.tables import write_table
from pipeline_lib.evaluation.edits import count_edits, ledger_of
from pipeline_lib.evaluation.images import Files, evaluate_images
from pipeline_lib.evaluation.metrics import Sections, collect_metrics
from pipeline_lib.evaluation.results import EditedSet, ImageSets, Kappa, Metrics, Rate
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import write_json
from tests.unit.made_results import NO_NETWORK, RATES, results_of

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
def evaluate(tmp_path, monkeypatch):
    """Return a function that runs the stage, the selector being wrong about the images at some positions."""
    monkeypatch.setattr("pipeline_lib.evaluation.images.measure_quality", lambda *_: {})

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
        truth_of_edits = write("true", "labels", labelled(tables["dataset_rebalanced"]))
        files = Files(
            images=[],
            selector=[write(f"selector/{name}", "scores", probabilities(tables[name], wrong)) for name in counts],
            referee=[write(f"referee/{name}", "scores", probabilities(tables[name])) for name in counts],
            held_out=[],
            held_out_truth=write("held_out", "labels", labelled(held_out)),
            held_out_referee=write("held_out_referee", "scores", probabilities(held_out, range(0, 400, 8))),
            truth=write("dataset", "labels", labelled(tables["dataset"])),
            rebalanced_truth=truth_of_edits if edits_are_known else None,
            checked=tmp_path / "checked.json" if edits_are_known else None,
        )
        evaluate_images(
            files=files,
            targets=TARGETS,
            detectors=Detectors(attributes=["smiling", "long_hair"]),
            settings=Evaluate(),
            seed=0,
            cache=tmp_path / "cache",
            image_sets=tmp_path / "image-sets.json",
            device=torch.device("cpu"),
        )
        found = ImageSets.read(tmp_path / "image-sets.json")
        return found.rate["smiling"], found.gap["smiling"], found

    return run


@pytest.mark.parametrize("known", [["dataset"], ["dataset", "dataset_rebalanced"]])
def test_rates_and_their_intervals_are_those_counted_by_hand(evaluate, known):
    rates, _, _ = evaluate(edits_are_known=len(known) > 1)
    assert {name for name in rates if "truth" in rates[name]} == set(known)
    for stage, groups in COUNTS.items():
        for found in (rates[stage][source] for source in ("truth", "selector", "referee") if source in rates[stage]):
            for group, (smiling, n) in groups.items():
                assert (found[group].n, found[group].value) == (n, smiling / n)
                assert found[group].ci == pytest.approx(wilson(smiling, n), abs=1e-6)


def test_the_truth_of_edits_is_no_source_of_labels_where_it_does_not_count(evaluate):
    rates, gaps, _ = evaluate(edits_are_known=True, truth_counts=False)
    assert "truth" not in rates["dataset_rebalanced"]
    assert "truth" not in gaps["dataset_rebalanced"]


def test_gaps_are_the_first_groups_rate_minus_the_seconds(evaluate):
    _, gaps, _ = evaluate(edits_are_known=True)
    assert set(gaps) == set(IMAGE_SETS)
    assert set(gaps["dataset"]) == {"truth", "selector", "referee", "corrected"}
    assert gaps["dataset_rebalanced"]["truth"] == gaps["dataset_rebalanced"]["referee"]
    assert set(gaps["samples"]) == {"selector", "referee", "corrected"}
    for number, stage in enumerate(IMAGE_SETS):
        for source in ("selector", "referee"):
            found = gaps[stage][source]
            assert found.value == pytest.approx((12 - 2 * number) / 20)
            assert found.ci[0] < found.value < found.ci[1]


def test_a_perfect_referee_is_hardly_corrected(evaluate):
    rates, gaps, _ = evaluate()
    for stage in IMAGE_SETS:
        assert gaps[stage]["corrected"].value == pytest.approx(gaps[stage]["referee"].value, abs=1e-6)
        for group in (LONG, SHORT):
            assert rates[stage]["corrected"][group].value == pytest.approx(rates[stage]["referee"][group].value)


def test_agreement_is_the_share_of_images_on_which_the_detectors_agree(evaluate, caplog):
    caplog.set_level(logging.WARNING)
    _, gaps, found = evaluate(wrong=[0, 1, 20])
    assert found.agreement == {stage: {"smiling": 37 / 40, "long_hair": 1.0} for stage in IMAGE_SETS}
    assert len(caplog.records) == len(IMAGE_SETS)
    assert "agree on `smiling` in 0.925 of `dataset`, less than 0.95" in caplog.records[0].message
    # Of the long-haired of the dataset 16 of 20 smile; the selector misses two, and of the others one more smiles not.
    assert gaps["dataset"]["selector"].value == pytest.approx(14 / 20 - 3 / 20)
    caplog.clear()
    evaluate(wrong=[0])
    assert not caplog.records


def test_the_order_of_rows_changes_nothing(evaluate):
    """The referee is wrong about every eighth held-out image, all of the half that it was calibrated on."""
    assert evaluate(wrong=[0, 1, 20]) == evaluate(wrong=[0, 1, 20], shuffled=True)


def test_agreement_beyond_chance_is_counted_in_each_group(evaluate):
    _, _, found = evaluate(wrong=[0, 1, 20])  # of the dataset two of the long-haired, of whom 16 of 20 smile
    says = np.arange(20) < 16
    kappa = cohen_kappa_score(says, np.where(np.arange(20) < 2, ~says, says))
    in_dataset = found.kappa["dataset"]["smiling"]
    assert in_dataset[LONG].kappa == pytest.approx(kappa)
    assert (in_dataset[LONG].agree, in_dataset[SHORT].agree) == (18, 19)
    _, _, found = evaluate(counts=COUNTS | {"retrained": {LONG: (20, 20), SHORT: (0, 0)}})
    assert found.kappa["retrained"]["smiling"] == {
        LONG: Kappa(n=20, agree=20, kappa=None),
        SHORT: Kappa(n=0, agree=0, kappa=None),
    }


def test_images_of_unknown_truth_are_not_counted(evaluate):
    def hide(table):
        table.loc[[0, 1, 2, 19], "smiling"] = pd.NA  # of the long-haired of the dataset three who smile, and one other
        table.loc[20, "long_hair"] = pd.NA  # a smile
        return table

    rates, _, _ = evaluate(hide=hide)
    counted = {group: (rate.n, rate.value) for group, rate in rates["dataset"]["truth"].items()}
    assert counted == {LONG: (16, 13 / 16), SHORT: (19, round(3 / 19, 6))}
    assert rates["dataset"]["referee"][LONG].n == 20


def test_a_group_that_nobody_is_in_has_no_rate_and_no_gap(evaluate):
    rates, gaps, _ = evaluate(counts=COUNTS | {"retrained": {LONG: (16, 40), SHORT: (0, 0)}})
    assert gaps["retrained"]["referee"] == Interval(value=None, ci=(None, None))
    assert rates["retrained"]["referee"][SHORT] == Rate(value=None, ci=(None, None), n=0)


def edits_of(chosen, referee):
    """Count two planned edits with two candidates each."""
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
    plan = pd.DataFrame({"image_id": ["a", "b"], "position": [0, 1], "target": 0, "attribute": "smiling"})
    plan = plan.assign(wanted=[True, False])
    after = pd.DataFrame({"smiling": referee, "long_hair": [0.9, 0.2, 0.1]}, index=["b", "a", "c"])
    before = pd.DataFrame({"smiling": 0.4, "long_hair": [0.1, 0.2, 0.9]}, index=["a", "b", "c"])
    return count_edits(candidates, plan, before, after, [PLANNED], TARGETS).model_dump(mode="json", exclude_unset=True)


def test_edits_are_counted_by_selector_and_referee():
    edits = edits_of(chosen=[False, True, True, False], referee=[0.7, 0.9, 0.9])
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


def test_the_ledger_counts_donors_and_other_attributes_by_target():
    first, second = edits_of(chosen=[False, True, True, False], referee=[0.7, 0.9, 0.9])["ledger"]
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


def test_edits_that_all_failed_count_as_none():
    edits = edits_of(chosen=[False] * 4, referee=[0.1, 0.9, 0.9])
    assert (edits["succeeded_by_selector"], edits["succeeded_by_referee"], edits["share_by_referee"]) == (0, 0, 0)
    assert edits["masked_l1"] is None


@pytest.mark.parametrize("rates", [RATES, NO_NETWORK])
def test_every_figure_ends_in_one_file(tmp_path, rates):
    found = results_of(rates)
    edited = {name: {key: found[key][name] for key in ("edits", "leakage")} for name in found["edits"]}
    files = {
        "image-sets": {name: found[name] for name in ImageSets.model_fields},
        **{field.name: found[field.name] for field in fields(Sections)},
        **{f"edits-{name}": values for name, values in edited.items()},
        **found["detectors"],
        "segmenter": found["segmenter"],
    }
    written = {name: tmp_path / f"{name}.json" for name, values in files.items() if values}
    for name, path in written.items():
        write_json(path, files[name])
    (tmp_path / "benchmarks/swap_parts").mkdir(parents=True)
    (tmp_path / "benchmarks/train_encoder.tsv").write_text("s\th:m:s\n12.5\t0:00:12\n")
    (tmp_path / "benchmarks/swap_parts/samples-0.tsv").write_text("s\th:m:s\n3.25\t0:00:03\n")
    collect_metrics(
        image_sets=written["image-sets"],
        edits=[written[f"edits-{name}"] for name in edited],
        sections=Sections(**{field.name: written.get(field.name) for field in fields(Sections)}),
        reports=[written[name] for name in (*found["detectors"], "segmenter")],
        benchmarks=tmp_path / "benchmarks",
        metrics=tmp_path / "metrics.json",
    )
    timing = {"train_encoder": 12.5, "swap_parts/samples-0": 3.25}
    assert Metrics.read(tmp_path / "metrics.json") == Metrics.model_validate(found | {"timing": timing})


def test_a_result_of_another_version_is_named_with_its_key(tmp_path):
    write_json(tmp_path / "edits-dataset.json", {"edits": {}})
    with pytest.raises(DataError, match=r"edits-dataset.json: edits.planned: .*; it is of another version"):
        EditedSet.read(tmp_path / "edits-dataset.json")
