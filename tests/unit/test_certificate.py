"""Targets are certified by labels of unedited images, and the truth or labels by eye of edited ones and of samples."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.audit.certificate import (
    DatasetCertificate,
    SamplesCertificate,
    certify,
)
from pipeline_lib.audit.dataset import check_labels
from pipeline_lib.audit.estimate import Interval
from pipeline_lib.audit.labels import digest_of_set, sealed_name
from pipeline_lib.audit.pages import say_basis, say_targets
from pipeline_lib.audit.population import Files
from pipeline_lib.config import Certify, Rebalance, parse_config
from pipeline_lib.data.shards import shard_writer
from pipeline_lib.data.tables import write_table
from pipeline_lib.runtime.errors import ConfigError, DataError
from pipeline_lib.runtime.files import read_json, write_json

TARGETS = Rebalance(
    targets=[{"where": {"long_hair": value}, "attribute": "smiling", "rate": 0.5} for value in (True, False)]
)
ATTRIBUTES = ["long_hair", "smiling"]
COUNT = 400  # images of each group; of those with long hair, 120 lose a smile, and 120 of the others get one
SAMPLES = 8000
#: Shares of the samples that smile, by group, and the share of smiles that the referee denies where hair is long.
RATES, DENIED = (0.5, 0.3), 0.1


def write_sheets(folder, rows, image_set, digest, edit="", differing=0):
    """Write a CSV of answers as text, and a second that answers otherwise on some smiles; returns the paths."""
    sheets = [rows.assign(image_set=image_set, digest=digest, edit=edit)]
    if differing:
        places = np.flatnonzero(rows["smiling"] == "0")[:differing]
        sheets.append(sheets[0].copy())
        sheets[1].iloc[places, sheets[1].columns.get_loc("smiling")] = "1"
    paths = [folder / f"{name}.csv" for name, _ in zip(("audit", "second"), sheets, strict=False)]
    for path, sheet in zip(paths, sheets, strict=True):
        sheet.to_csv(path, index=False)
    return paths


@pytest.fixture
def certify_edits(tmp_path, write_shards):
    """Return a function that certifies a dataset in which some edits failed, by truth, by an audit or without."""
    names = [f"image-{number:03d}" for number in range(2 * COUNT)]
    long_hair = np.arange(2 * COUNT) < COUNT
    smiling = np.where(long_hair, np.arange(2 * COUNT) % 10 < 8, np.arange(2 * COUNT) % 10 < 2)
    places = [*np.flatnonzero(long_hair & smiling)[:120], *np.flatnonzero(~long_hair & ~smiling)[:120]]
    edited = np.isin(np.arange(2 * COUNT), places)
    labels = pd.DataFrame({"image_id": names, "long_hair": long_hair, "smiling": smiling}).astype({"image_id": str})
    plan = labels.loc[edited, ["image_id"]].assign(
        position=places, target=np.int16(~long_hair[edited]), attribute="smiling", wanted=~smiling[edited]
    )
    write_table(tmp_path / "plan.parquet", "plan", plan)
    write_table(tmp_path / "labels.parquet", "labels", labels.assign(split="train"))
    unedited = labels.assign(edited=edited).astype(dict.fromkeys(ATTRIBUTES, "boolean"))
    unedited.loc[edited, ATTRIBUTES] = pd.NA
    shards = write_shards(np.zeros((2 * COUNT, 4, 4, 3), np.uint8), names)

    def run(failed=0, audited=0, by_truth=None, tolerance=0.03, unclear=None, differing=0):
        true = labels.assign(smiling=np.where(edited, ~smiling, smiling), split="train")
        true.loc[np.array(places)[:failed], "smiling"] = True  # these kept their smile
        given, audit = {}, []
        if by_truth is not None:
            write_table(tmp_path / "true.parquet", "labels", true)
            write_json(tmp_path / "checked.json", {"counts": by_truth})
            given = {"truth": tmp_path / "true.parquet", "checked": tmp_path / "checked.json"}
        if audited:
            drawn = np.random.default_rng(0).choice(places, audited, replace=False)
            sheet = true.loc[drawn, ["image_id", *ATTRIBUTES]].replace({True: "1", False: "0"})
            for column, count in (unclear or {}).items():
                sheet.iloc[:count, sheet.columns.get_loc(column)] = "?"
            digest = digest_of_set("dataset_rebalanced", shards)
            audit = write_sheets(tmp_path, sheet, "dataset_rebalanced", digest, "x", differing)
        write_table(tmp_path / "assembled.parquet", "assembled", unedited)
        tables = {name: tmp_path / f"{name}.parquet" for name in ("labels", "assembled", "plan")}
        certify(
            files=Files(shards, **tables, **given),
            audit=audit,
            targets=TARGETS,
            settings=Certify(tolerance=tolerance),
            confidence=0.95,
            seed=0,
            certificate=tmp_path / "certificate.json",
        )
        return DatasetCertificate.model_validate(read_json(tmp_path / "certificate.json"))

    return run


def test_where_the_truth_is_known_there_is_no_doubt(certify_edits):
    found = certify_edits(failed=6, by_truth=True)
    first, second = found.targets
    assert (found.source, first.group, first.edited, first.audited) == ("truth", "long_hair", 120, 120)
    assert first.rate == Interval(value=0.515, ci=(0.515, 0.515))  # 200 of 400, and 6 whose edit failed
    assert second.rate.value == 0.5
    assert first.verdict == second.verdict == "met"
    asked = "Of images with “long hair”, 50.0 % were to have “smiling”, give or take 3 points."
    assert say_targets(found)[0] == f"{asked} 51.5 % do. The target is met."
    assert [target.verdict for target in certify_edits(failed=40, by_truth=True).targets] == ["missed", "met"]
    apart = certify_edits(failed=6, by_truth=True, tolerance=[0.01, 0.03])
    assert [target.verdict for target in apart.targets] == ["missed", "met"]


def test_without_an_audit_nothing_is_certain_and_the_labels_that_would_do_are_said(certify_edits):
    found = certify_edits()
    assert [target.verdict for target in found.targets] == ["not enough evidence"] * 2
    assert 10 < found.targets[0].labels_needed <= 240
    assert "labels of edited images are likely to be enough; there are 0." in say_targets(found)[0]
    unchecked = certify_edits(by_truth=False)  # a truth that is wrong about known edits
    assert (unchecked.source, unchecked.targets[0].verdict) == (None, "not enough evidence")


def test_an_audit_stands_for_the_edits_that_were_not_audited(certify_edits):
    found = certify_edits(failed=12, audited=150)
    first = found.targets[0]
    assert first.rate.estimate.low < 0.53 < first.rate.estimate.high
    assert (found.source, first.labels_there) == ("audit", 150)
    assert certify_edits(audited=200).targets[0].verdict == "met"
    assert certify_edits(by_truth=True, audited=200).source == "audit"  # it was made to be used


def test_edits_that_could_not_be_determined_widen_the_interval_and_leave_the_rate(certify_edits):
    sure, unsure = (
        certify_edits(audited=200, failed=12, unclear=dict.fromkeys(ATTRIBUTES, count)) for count in (0, 40)
    )
    rates = [found.targets[0].rate for found in (sure, unsure)]
    assert rates[1].estimate.low < rates[0].estimate.low and rates[1].estimate.high > rates[0].estimate.high + 0.02
    assert rates[1].value == pytest.approx(rates[0].value, abs=0.01)
    assert (sure.unclear, unsure.unclear) == (0, 40)
    # if all of 240 edits are audited, and of 60 only the group is known, the rate of that group is open by as much
    limits = [target.rate for target in certify_edits(audited=240, unclear={"smiling": 60}).targets]
    assert sum(rate.estimate.high - rate.estimate.low for rate in limits) == pytest.approx(60 / COUNT)


def test_a_second_opinion_is_counted(certify_edits):
    found, alone = certify_edits(audited=200, differing=20), certify_edits(audited=200)
    rates = [certified.targets[0].rate.estimate for certified in (alone, found)]
    assert rates[1].low <= rates[0].low and rates[1].high > rates[0].high + 0.01  # 20 edits to no smile
    assert next(pair for pair in found.agreement if pair.attribute == "smiling").agree == 180


def test_what_two_people_differ_on_does_not_vanish_from_the_check_of_the_labels():
    kept = pd.DataFrame({"smiling": True}, index=list("abcd"))
    known = pd.DataFrame({"smiling": pd.array([True, None, False], "boolean")}, index=list("abc"))
    assert check_labels(kept, known, ["smiling"]) == {"audited": 3, "agree": 1, "unclear": 1}


def test_the_config_names_tolerances_and_labels_that_fit(tmp_path):
    (tmp_path / "one.csv").write_text("")
    rest = {
        "rebalance": {
            "targets": [target.model_dump() for target in TARGETS.targets],
            "edit": {"editor": "poisson"},
        },
        "retrain": None,
    }
    with pytest.raises(ConfigError, match=r"`certify.tolerance` has 1 entries for 2 targets; give one for each"):
        parse_config(rest | {"certify": {"tolerance": [0.1]}})
    with pytest.raises(ConfigError, match=r"`certify.labels.1`: no file .*two.csv"):
        parse_config(rest | {"certify": {"labels": [str(tmp_path / name) for name in ("one.csv", "two.csv")]}})


# Samples of the retrained GAN


@pytest.fixture
def certify_gan(tmp_path):
    """Return a function that certifies samples of which some are labelled."""
    random = np.random.default_rng(0)
    names = {name: [f"{name}-{number:08d}" for number in range(SAMPLES)] for name in ("retrained", "control")}
    long_hair = random.random(SAMPLES) < 0.5
    smiling = random.random(SAMPLES) < np.where(long_hair, *RATES)
    said = smiling & ~(long_hair & (random.random(SAMPLES) < DENIED))
    for name, found in names.items():
        scores = pd.DataFrame({"image_id": found, "long_hair": long_hair, "smiling": said})
        write_table(tmp_path / f"{name}.parquet", "scores", scores.astype(dict.fromkeys(ATTRIBUTES, "float32")))
    with shard_writer(tmp_path / "0.parquet", 4) as writer:
        writer.add(names["retrained"][:1], np.zeros((1, 4, 4, 3), np.uint8))
    digest = digest_of_set("retrained", [tmp_path / "0.parquet"])
    truth = pd.DataFrame({"long_hair": long_hair, "smiling": smiling}).astype(int)

    def run(labels=0, controls=0, unclear=0, differing=0, tolerance=0.03, image_set="retrained"):
        audit = []
        if labels or controls:
            drawn = np.random.default_rng(1).permutation(SAMPLES)
            sheet = truth.iloc[drawn[: labels + controls]].astype(str)
            of = names["retrained"], names["control"]
            called = [sealed_name(of[place >= labels][number]) for place, number in enumerate(sheet.index)]
            sheet.iloc[:unclear] = "?"
            audit = write_sheets(tmp_path, sheet.assign(image_id=called), image_set, digest, differing=differing)
        scores = {name: tmp_path / f"{name}.parquet" for name in names}
        certify(
            files=Files([tmp_path / "0.parquet"], **scores),
            audit=audit,
            targets=TARGETS,
            settings=Certify(tolerance=tolerance),
            confidence=0.95,
            seed=0,
            certificate=tmp_path / "certificate.json",
        )
        return SamplesCertificate.model_validate(read_json(tmp_path / "certificate.json"))

    run.rates = [smiling[long_hair == value].mean() for value in (True, False)]
    return run


def test_labels_correct_a_referee_that_is_wrong_about_one_group(certify_gan):
    found = certify_gan(labels=1500, controls=300, tolerance=0.05)
    assert (found.source, found.labels, found.samples) == ("audit", 1500, SAMPLES)
    for target, rate, believed, right in zip(found.targets, certify_gan.rates, (0.45, 0.3), (0.975, 1), strict=True):
        assert target.by_referee.value == pytest.approx(believed, abs=0.02)
        assert target.rate.estimate.low < rate < target.rate.estimate.high
        assert target.rate.value == pytest.approx(rate, abs=0.015)
        assert target.told == 1500
        assert target.agree / 1500 == pytest.approx(right, abs=0.01)
    assert [target.verdict for target in found.targets] == ["met", "missed"]
    first, second = (target.errors for target in found.targets)
    assert first["with"].wrong / first["with"].n == pytest.approx(DENIED, abs=0.03)
    assert first["without"].wrong == second["with"].wrong == second["without"].wrong == 0
    assert sum(of_value.n for of_group in (first, second) for of_value in of_group.values()) == 1500


def test_without_labels_nothing_is_certain_and_the_command_that_draws_enough_is_said(certify_gan):
    found = certify_gan()
    assert found.source is None
    assert [(target.rate, target.verdict) for target in found.targets] == [(None, "not enough evidence")] * 2
    known = max(target.labels_needed or 0 for target in found.targets)
    assert f"audit sheets --config YOUR_CONFIG.yaml --set retrained --count {known}`" in say_basis(found)
    of_edits = certify_gan(labels=20, image_set="dataset_rebalanced")  # a CSV that is of the other population
    assert of_edits.labels == 0


def test_too_few_labels_are_not_enough(certify_gan):
    found = certify_gan(labels=150, tolerance=0.06)
    first = found.targets[0]
    assert first.verdict == "not enough evidence" and first.labels_needed > 150


def test_samples_that_could_not_be_determined_widen_the_interval(certify_gan):
    clear, unclear = (certify_gan(labels=1500, unclear=count) for count in (0, 60))
    widths = [found.targets[0].rate.estimate.high - found.targets[0].rate.estimate.low for found in (clear, unclear)]
    assert widths[1] > widths[0] + 0.02
    assert unclear.unclear == 60
    assert certify_gan(labels=400, differing=20).unclear == 20


def test_labels_of_the_control_alone_are_no_labels_of_the_retrained_gan(certify_gan):
    assert certify_gan(controls=5).targets[0].rate is None


def test_labels_of_other_samples_are_refused(certify_gan, tmp_path):
    with shard_writer(tmp_path / "0.parquet", 4) as writer:
        writer.add(["retrained-00000000"], np.ones((1, 4, 4, 3), np.uint8))
    with pytest.raises(DataError, match=r"audit.csv: an audit of other images, since the retrained GAN has changed"):
        certify_gan(labels=20)
