"""A target is certified by the labels of unedited images and the truth or an audit of edited ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from pipeline_lib.audit.certificate import _check_labels, certify_targets
from pipeline_lib.audit.labels import agreement_of_audits, check_different, check_fresh, combine_audits, read_audit
from pipeline_lib.config import Certify, Rebalance, parse_config
from pipeline_lib.data.shards import digest_of_images
from pipeline_lib.data.tables import write_table
from pipeline_lib.report.certificate import describe_certificate, say_certificate
from pipeline_lib.runtime.errors import ConfigError, DataError
from pipeline_lib.runtime.files import read_json, write_json

TARGETS = Rebalance(
    targets=[{"where": {"long_hair": value}, "attribute": "smiling", "rate": 0.5} for value in (True, False)]
)
ATTRIBUTES = ["long_hair", "smiling"]
COUNT = 400  # images of each group; of those with long hair, 120 lose a smile, and 120 of the others get one


@pytest.fixture
def certify(tmp_path, write_shards):
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
    assembled = labels.assign(edited=edited).astype(dict.fromkeys(ATTRIBUTES, "boolean"))
    assembled.loc[edited, ATTRIBUTES] = pd.NA
    write_table(tmp_path / "assembled.parquet", "assembled", assembled)

    shards = write_shards(np.zeros((2 * COUNT, 4, 4, 3), np.uint8), names)

    def run(
        failed=0,
        audited=None,
        by_truth=None,
        labelled=True,
        tolerance=0.03,
        unclear=0,
        differing=0,
        groups_known=False,
    ):
        true = labels.assign(smiling=np.where(edited, ~smiling, smiling), split="train")
        true.loc[np.array(places)[:failed], "smiling"] = True  # these kept their smile
        given = {"truth": [], "checked": [], "audit": []}
        if by_truth is not None:
            write_table(tmp_path / "true.parquet", "labels", true)
            write_json(tmp_path / "checked.json", {"counts": by_truth})
            given |= {"truth": [tmp_path / "true.parquet"], "checked": [tmp_path / "checked.json"]}
        if audited:
            drawn = np.random.default_rng(0).choice(places, audited, replace=False)
            sheet = true.loc[drawn, ["image_id", *ATTRIBUTES]].replace({True: "1", False: "0"})
            sheet.iloc[:unclear, 2 if groups_known else 1 :] = "?"
            sheet.assign(dataset=digest_of_images(shards)).to_csv(tmp_path / "audit.csv", index=False)
            given["audit"] = [tmp_path / "audit.csv"]
            if differing:
                places_of = np.flatnonzero(sheet["smiling"] == "0")[:differing]
                sheet.iloc[places_of, sheet.columns.get_loc("smiling")] = "1"
                sheet.assign(dataset=digest_of_images(shards)).to_csv(tmp_path / "second.csv", index=False)
                given["audit"].append(tmp_path / "second.csv")
        if not labelled:
            write_table(tmp_path / "assembled.parquet", "assembled", assembled[["image_id", "edited"]])
        certify_targets(
            rebalanced=shards,
            labels=tmp_path / "labels.parquet",
            assembled=tmp_path / "assembled.parquet",
            plan=tmp_path / "plan.parquet",
            **given,
            targets=TARGETS,
            settings=Certify(tolerance=tolerance),
            confidence=0.95,
            seed=0,
            certificate=tmp_path / "certificate.json",
        )
        return read_json(tmp_path / "certificate.json")

    return run


def test_where_the_truth_is_known_there_is_no_doubt(certify):
    found = certify(failed=6, by_truth=True)
    first, second = found["targets"]
    assert (found["source"], first["group"], first["edited"], first["audited"]) == ("truth", "long_hair", 120, 120)
    assert first["rate"] == {"value": 0.515, "ci": [0.515, 0.515]}  # 200 of 400, and 6 whose edit failed
    assert second["rate"]["value"] == 0.5
    assert [target["verdict"] for target in found["targets"]] == ["met", "met"]
    asked = "Of images with “long hair”, 50.0 % were to have “smiling”, give or take 3 points."
    assert say_certificate(found)[0] == f"{asked} 51.5 % do. The target is met."
    assert "No detector takes part" in describe_certificate(found)


def test_a_target_that_was_missed_is_said_to_be(certify):
    assert [target["verdict"] for target in certify(failed=40, by_truth=True)["targets"]] == ["missed", "met"]


def test_without_an_audit_nothing_is_certain_and_the_labels_that_would_do_are_said(certify):
    found = certify()
    assert [target["verdict"] for target in found["targets"]] == ["not enough evidence"] * 2
    assert 10 < found["targets"][0]["labels_needed"] <= 240
    assert "labels of edited images are likely to be enough; there are 0." in say_certificate(found)[0]


def test_an_audit_stands_for_the_edits_that_were_not_audited(certify):
    found = certify(failed=12, audited=150)
    first = found["targets"][0]
    low, high = first["rate"]["ci"]
    assert low < 0.53 < high
    assert (found["source"], first["labels_there"]) == ("audit", 150)
    assert certify(audited=200)["targets"][0]["verdict"] == "met"
    assert certify(by_truth=True, audited=200)["source"] == "audit"  # it was made to be used


def test_edits_of_which_nobody_can_tell_what_they_show_widen_the_interval_and_leave_the_rate(certify):
    sure, unsure = certify(audited=200, failed=12), certify(audited=200, failed=12, unclear=40)
    (low, high), (lower, higher) = (found["targets"][0]["rate"]["ci"] for found in (sure, unsure))
    assert (lower < low) & (higher > high + 0.02)
    assert unsure["targets"][0]["rate"]["value"] == pytest.approx(sure["targets"][0]["rate"]["value"], abs=0.01)
    assert (sure["unclear"], unsure["unclear"]) == (0, 40)
    assert "Of 40 audited edits it could not be told what they show." in describe_certificate(unsure)
    assert "could not be told" not in describe_certificate(sure)


def test_an_edit_counts_though_something_else_could_not_be_told(certify):
    """If all of 240 edits are audited, and of 60 only the group is known, the rate of that group is open by as much."""
    found = certify(audited=240, unclear=60, groups_known=True)
    limits = [target["rate"]["ci"] for target in found["targets"]]
    assert sum(high - low for low, high in limits) == pytest.approx(60 / COUNT)


def test_a_truth_that_is_wrong_about_known_edits_does_not_count(certify):
    found = certify(by_truth=False)
    assert (found["source"], found["targets"][0]["verdict"]) == (None, "not enough evidence")


def test_a_dataset_without_labels_has_no_certificate(certify):
    found = certify(labelled=False)
    assert found["targets"][0]["rate"] is None
    assert "The dataset has no labels of these attributes." in say_certificate(found)[0]


def test_every_target_can_have_its_own_tolerance(certify):
    found = certify(failed=6, by_truth=True, tolerance=[0.01, 0.03])
    assert [target["verdict"] for target in found["targets"]] == ["missed", "met"]
    rebalance = {"targets": [target.model_dump() for target in TARGETS.targets], "edit": {"editor": "poisson"}}
    with pytest.raises(ConfigError, match=r"`certify.tolerance` has 1 entries for 2 targets; give one for each"):
        parse_config({"rebalance": rebalance, "retrain": None, "certify": {"tolerance": [0.1]}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,dataset,smiling\na,x,1", "no column `long_hair`; it has image_id, dataset, smiling"),
        ("image_id,dataset,smiling,long_hair\na,x,1,1\na,x,0,1", "a has two rows with different labels; keep one"),
        ("image_id,dataset,smiling,long_hair\na,x,1,1\nz,x,0,1", "z is no image of this run's rebalanced dataset"),
        ("image_id,dataset,smiling,long_hair\na,x,1,1\nb,x,,1", "b has `` for `smiling`; 1, 0 or \\? is needed"),
        ("image_id,dataset,smiling,long_hair\na,x,1,maybe", "a has `maybe` for `long_hair`"),
        ("image_id,dataset,smiling,long_hair\na,y,1,1", "an audit of other images, since the rebalanced dataset has"),
    ],
)
def test_an_audit_that_cannot_be_used_is_named(text, message, tmp_path):
    (tmp_path / "audit.csv").write_text(text)
    with pytest.raises(DataError, match=message) as refused:
        read_audit(tmp_path / "audit.csv", {"a", "b"}, ["smiling", "long_hair"], ["x"])
    assert str(refused.value).startswith(str(tmp_path / "audit.csv"))


def sheet_of(labels):
    return pd.DataFrame({"smiling": pd.array(list(labels.values()), "boolean")}, index=list(labels))


def test_where_two_people_differ_it_cannot_be_told_what_an_image_shows():
    one, other = sheet_of({"a": True, "b": False, "c": None}), sheet_of({"b": True, "a": True, "c": None, "d": False})
    combined = combine_audits([one, other])["smiling"]
    assert list(combined.index) == ["a", "b", "c", "d"]
    assert combined.dropna().to_dict() == {"a": True, "d": False}
    assert combine_audits([one]).equals(one)


def test_agreement_of_two_people_is_cohens_kappa():
    random = np.random.default_rng(0)
    answers = random.random(200) < 0.7
    others = np.where(random.random(200) < 0.85, answers, ~answers)
    one, other = (sheet_of(dict(zip(range(200), map(bool, found), strict=True))) for found in (answers, others))
    found = agreement_of_audits({"a.csv": one, "b.csv": other.sample(frac=1, random_state=0)})[0]
    assert (found["images"], found["agree"]) == (200, int((answers == others).sum()))
    assert (found["files"], found["attribute"]) == (["a.csv", "b.csv"], "smiling")
    assert found["kappa"] == pytest.approx(cohen_kappa_score(answers, others))
    assert agreement_of_audits({"a.csv": one}) == []
    assert agreement_of_audits({"a.csv": one, "b.csv": sheet_of({"z": True})}) == []
    same = sheet_of({"a": True, "b": True})
    assert agreement_of_audits({"a.csv": same, "b.csv": same})[0]["kappa"] is None  # chance alone would agree as well
    unsure = sheet_of({"a": True, "b": None, "c": False, "d": None})
    other = sheet_of({"a": True, "b": None, "c": None, "d": False})
    kappa = cohen_kappa_score(["yes", "?", "no", "?"], ["yes", "?", "?", "no"])
    assert agreement_of_audits({"a.csv": unsure, "b.csv": other})[0]["kappa"] == pytest.approx(kappa)
    assert len(agreement_of_audits({"a.csv": one, "b.csv": one, "c.csv": one})) == 3


def test_a_second_opinion_is_counted_and_said(certify):
    found = certify(audited=200, differing=20)
    alone = certify(audited=200)
    (low, high), (lower, higher) = (certified["targets"][0]["rate"]["ci"] for certified in (alone, found))
    assert (lower <= low) & (higher > high + 0.01)  # 20 edits to no smile
    assert next(pair for pair in found["agreement"] if pair["attribute"] == "smiling")["agree"] == 180
    said = "audit.csv and second.csv agree on “smiling” in 180 of 200 images (Cohen's kappa 0."
    assert said in describe_certificate(found)
    assert "kappa" not in describe_certificate(alone)


def test_what_two_people_differ_on_does_not_vanish_from_the_check_of_the_labels():
    kept = pd.DataFrame({"image_id": list("abcd"), "smiling": True})
    known = sheet_of({"a": True, "b": None, "c": False})
    assert _check_labels(kept, known, TARGETS.targets) == {"audited": 3, "agree": 1, "unclear": 1}


def test_the_same_labels_twice_are_refused(tmp_path):
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text("image_id,dataset,smiling\na,x,1\n")
    with pytest.raises(DataError, match=r"two.csv: the same labels as in .*one.csv; name each file"):
        check_different([tmp_path / "one.csv", tmp_path / "two.csv"])


def test_labels_that_the_edits_were_planned_by_cannot_certify_them(tmp_path):
    for name, rows in {
        "plan.csv": "a,x,1\nb,x,0\n",
        "again.csv": "b,y,1\na,y,1\n",
        "fresh.csv": "a,y,1\nc,y,1\n",
    }.items():
        (tmp_path / name).write_text(f"image_id,dataset,smiling\n{rows}")
    plan, again, fresh = (tmp_path / f"{name}.csv" for name in ("plan", "again", "fresh"))
    check_fresh([fresh], [plan])  # drawn anew, though one image is on both
    for used in (plan, again):
        with pytest.raises(DataError, match=rf"{used.name}: the images of .*plan.csv, by which the edits were planned"):
            check_fresh([fresh, used], [plan])


def test_every_file_of_an_audit_is_looked_for(tmp_path):
    (tmp_path / "one.csv").write_text("")
    files = [str(tmp_path / name) for name in ("one.csv", "two.csv")]
    rebalance = {"targets": [target.model_dump() for target in TARGETS.targets], "edit": {"editor": "poisson"}}
    with pytest.raises(ConfigError, match=r"`certify.labels.1`: no file .*two.csv"):
        parse_config({"rebalance": rebalance, "retrain": None, "certify": {"labels": files}})


def test_labels_of_an_audit_may_be_written_in_several_ways_and_twice(tmp_path):
    (tmp_path / "audit.csv").write_text("image_id,dataset,smiling\na,x,1\nb,x, No\nc,x,TRUE\na,x,1\nd,x,?\n")
    found = read_audit(tmp_path / "audit.csv", {"a", "b", "c", "d"}, ["smiling"], ["x"])["smiling"]
    assert found.dropna().tolist() == [True, False, True]
    assert found.isna().tolist() == [False, False, False, True]
