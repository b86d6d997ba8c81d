"""Labels by eye are read from CSVs that say what they are of, taken together, and refused where they do not fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from pipeline_lib.audit import labels
from pipeline_lib.audit.labels import (
    agreement_of,
    check_fresh,
    combine_labels,
    digest_of_set,
    read_present_labels,
    read_sheets,
)
from pipeline_lib.data.shards import shard_writer
from pipeline_lib.runtime.errors import DataError

HEAD = "image_id,image_set,digest,edit,smiling,long_hair\n"
OF = "dataset_rebalanced,x,e"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,image_set,digest,edit,smiling\na,dataset_rebalanced,x,,1", "no column `long_hair`; it has image_id"),
        (f"{HEAD}a,{OF},1,1\na,{OF},0,1", "a has two rows with different labels; keep one"),
        (f"{HEAD}a,{OF},1,1\nz,{OF},0,1", "z is no image of this run's rebalanced dataset; draw a new audit for it"),
        (f"{HEAD}a,{OF},1,1\nb,{OF},,1", "b has `` for `smiling`; 1, 0 or \\? is needed"),
        (f"{HEAD}a,{OF},1,maybe", "a has `maybe` for `long_hair`"),
        (f"{HEAD}a,dataset_rebalanced,y,e,1,1", "an audit of other images, since the rebalanced dataset has changed"),
        (f"{HEAD}a,pictures,x,e,1,1", "`image_set` is pictures; it must be one of dataset_rebalanced, retrained"),
    ],
)
def test_labels_that_cannot_be_used_are_named(text, message, tmp_path, monkeypatch):
    monkeypatch.setattr(labels, "digest_of_set", lambda image_set, shards: "x")
    (tmp_path / "audit.csv").write_text(text)
    with pytest.raises(DataError, match=message) as refused:
        read_present_labels([tmp_path / "audit.csv"], "dataset_rebalanced", {"a", "b"}, ["smiling", "long_hair"], [])
    assert str(refused.value).startswith(str(tmp_path / "audit.csv"))


def test_labels_may_be_written_in_several_ways_and_twice_and_are_of_one_image_set(tmp_path):
    rows = "".join(
        f"{name},{OF},{answer},1\n" for name, answer in zip("abcad", ("1", " No", "TRUE", "1", "?"), strict=True)
    )
    (tmp_path / "audit.csv").write_text(HEAD + rows)
    (tmp_path / "samples.csv").write_text(f"{HEAD}s,retrained,z,,1,1\n")
    paths = [tmp_path / "audit.csv", tmp_path / "samples.csv"]
    (sheet,) = read_sheets(paths, "dataset_rebalanced", set("abcd"), ["smiling"])
    assert sheet.labels["smiling"].dropna().tolist() == [True, False, True]
    assert sheet.labels["smiling"].isna().tolist() == [False, False, False, True]
    assert list(read_sheets(paths, "retrained", {"s"}, ["smiling"])[0].labels.index) == ["s"]


def test_the_same_labels_twice_are_refused(tmp_path):
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text(f"{HEAD}a,{OF},1,1\n")
    with pytest.raises(DataError, match=r"two.csv: the same labels as in .*one.csv; name each file once"):
        read_sheets([tmp_path / "one.csv", tmp_path / "two.csv"], "dataset_rebalanced", {"a"}, ["smiling"])


def test_labels_that_the_edits_were_planned_by_cannot_certify_them(tmp_path):
    for name, images in {"plan": "ab", "again": "ba", "fresh": "ac"}.items():
        (tmp_path / f"{name}.csv").write_text(HEAD + "".join(f"{image},{OF},1,1\n" for image in images))
    plan, again, fresh = (tmp_path / f"{name}.csv" for name in ("plan", "again", "fresh"))
    check_fresh([fresh], [plan])  # drawn anew, though one image is on both
    for used in (plan, again):
        with pytest.raises(DataError, match=rf"{used.name}: the images of .*plan.csv, by which the edits were planned"):
            check_fresh([fresh, used], [plan])


def sheet_of(answers):
    return pd.DataFrame({"smiling": pd.array(list(answers.values()), "boolean")}, index=list(answers))


def test_where_two_people_differ_an_image_could_not_be_determined():
    one, other = sheet_of({"a": True, "b": False, "c": None}), sheet_of({"b": True, "a": True, "c": None, "d": False})
    combined = combine_labels([one, other], ["smiling"])["smiling"]
    assert list(combined.index) == ["a", "b", "c", "d"]
    assert combined.dropna().to_dict() == {"a": True, "d": False}
    assert combine_labels([one], ["smiling"]).equals(one)


def test_agreement_of_two_people_is_cohens_kappa():
    random = np.random.default_rng(0)
    answers = random.random(200) < 0.7
    others = np.where(random.random(200) < 0.85, answers, ~answers)
    one, other = (sheet_of(dict(zip(range(200), map(bool, found), strict=True))) for found in (answers, others))
    found = agreement_of({"a.csv": one, "b.csv": other.sample(frac=1, random_state=0)})[0]
    assert (found["images"], found["agree"]) == (200, int((answers == others).sum()))
    assert (found["files"], found["attribute"]) == (["a.csv", "b.csv"], "smiling")
    assert found["kappa"] == pytest.approx(cohen_kappa_score(answers, others))
    assert agreement_of({"a.csv": one, "b.csv": sheet_of({"z": True})}) == []
    same = sheet_of({"a": True, "b": True})
    assert agreement_of({"a.csv": same, "b.csv": same})[0]["kappa"] is None  # chance alone would agree as well
    unsure = sheet_of({"a": True, "b": None, "c": False, "d": None})
    other = sheet_of({"a": True, "b": None, "c": None, "d": False})
    kappa = cohen_kappa_score(["yes", "?", "no", "?"], ["yes", "?", "?", "no"])
    assert agreement_of({"a.csv": unsure, "b.csv": other})[0]["kappa"] == pytest.approx(kappa)
    assert len(agreement_of({"a.csv": one, "b.csv": one, "c.csv": one})) == 3


def test_the_digest_of_samples_is_of_how_they_look_and_not_of_how_many_there_are(tmp_path):
    def digest(shade, count):
        with shard_writer(tmp_path / "0.parquet", 4) as writer:
            writer.add([f"retrained-{number}" for number in range(count)], np.full((count, 4, 4, 3), shade, np.uint8))
        return digest_of_set("retrained", [tmp_path / "0.parquet"])

    assert digest(0, 20) == digest(0, 50) != digest(1, 20)
