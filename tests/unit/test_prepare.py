"""The first stage keeps copies of a picture together, and says what it did not take as it was."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from pipeline_lib.data import prepare
from pipeline_lib.data.readers.huggingface import HuggingFaceData
from pipeline_lib.data.shards import read_shards
from pipeline_lib.data.sources import Item, LeftOut, Record, Source
from pipeline_lib.data.tables import read_table
from pipeline_lib.runtime.errors import DataError

SIDE = 32


def paint(item):
    """Read an item whose origin is the grey of its pixels."""
    conversions = ("CMYK to RGB",) if item.image_id.startswith("cmyk") else ()
    return Record(np.full((SIDE, SIDE, 3), item.origin, np.uint8), None, conversions)


def item(name, grey, smiling=True, person=None):
    return Item(name, grey, {"smiling": smiling}, person)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that prepares a source, and returns labels by image of each split, notes and quarantine."""

    def run(train, held_out, **options):
        source = Source(train, held_out, paint, "painted", **options)
        monkeypatch.setattr(HuggingFaceData, "open", lambda _: source)
        tables = ("labels", "held_out_labels", "masks", "held_out_masks", "quarantine", "notes")
        shards = {name: [tmp_path / name / "0.parquet"] for name in ("images", "held_out")}
        prepare.prepare_dataset(
            settings=HuggingFaceData(reader="huggingface", folder=tmp_path, attributes=["smiling"], resolution=SIDE),
            run="toy",
            threads=1,
            **shards,
            **{name: tmp_path / f"{name}.parquet" for name in tables},
        )
        labels = [read_table(tmp_path / f"{name}.parquet", "labels").set_index("image_id") for name in tables[:2]]
        for table, images in zip(labels, shards.values(), strict=True):
            assert read_shards(images)[0] == table.index.tolist()
        return (*labels, *(read_table(tmp_path / f"{name}.parquet", name) for name in ("notes", "quarantine")))

    return run


def rows_of(notes):
    return notes.astype(object).where(notes.notna(), None).to_numpy().tolist()


def test_a_copy_of_a_training_image_is_left_out_of_the_held_out_set(run):
    train, held_out, notes, bad = run([item("a", 1), item("b", 2)], [item("c", 2), item("d", 3)])
    assert (train.index.tolist(), held_out.index.tolist()) == (["a", "b"], ["d"])
    assert rows_of(notes) == [["c", "held_out", "duplicate", "a copy of b; left out, for the same is in training"]]
    assert bad.empty


def test_copies_in_one_split_are_kept_and_show_one_person(run):
    train = [item("a", 1), item("b", 2), item("c", 1), item("d", 3, person="7"), item("e", 1)]
    held_out = [item("f", 4), item("g", 4)]
    train, held_out, notes, _ = run(train, held_out)
    people = train["person"].fillna(train.index.to_series())  # as detectors tell people apart
    assert people.tolist() == ["a", "b", "a", "7", "a"]
    assert held_out["person"].fillna(held_out.index.to_series()).tolist() == ["f", "f"]
    assert notes["name"].tolist() == ["c", "e", "g"]
    assert set(notes["kind"]) == {"duplicate"}


def test_a_copy_makes_two_names_one_person_also_in_images_that_came_before(run):
    people = {"a": None, "b": "7", "c": "7", "d": "8", "e": "9"}
    greys = {"a": 1, "b": 2, "c": 1, "d": 2, "e": 5}
    train, *_ = run([item(name, greys[name], person=people[name]) for name in people], [item("f", 6)])
    found = train["person"].fillna(train.index.to_series())
    assert found[list("abcd")].nunique() == 1
    assert found["e"] == "9"


def test_a_copy_with_the_opposite_label_is_not_used(run):
    train, held_out = [item(f"{grey}", grey) for grey in range(200)], [item("x", 201), item("y", 202)]
    labels, _, notes, bad = run([*train, item("copy", 5, smiling=False)], held_out, tolerated=0.01)
    assert labels.index.tolist() == [f"{grey}" for grey in range(200) if grey != 5]
    assert notes.empty
    assert bad["image_id"].tolist() == ["5", "copy"]
    assert set(bad["reason"]) == {"5 and copy have the same pixels, but not the same `smiling`; correct one"}
    with pytest.raises(DataError, match=r"1 of 3 held_out images cannot be used.* is copy \(5 and copy have the same"):
        run(train, [*held_out, item("copy", 5, smiling=False)], tolerated=0.01)


@pytest.mark.parametrize("labels", [(None, True, False), (False, None, True), (True, False, False)])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_of_three_copies_that_contradict_each_other_none_is_used_in_any_order(run, labels, split):
    copies = [item(f"copy{number}", 9, label) for number, label in enumerate(labels)]
    train, held_out = [item("a", 1), item("b", 2)], [item("c", 3)]
    of = {"train": train, "held_out": held_out}
    of["train"].append(copies[0])
    of[split] += copies[1:]
    found, others, _, bad = run(train, held_out, tolerated=0.9)
    assert (found.index.tolist(), others.index.tolist()) == (["a", "b"], ["c"])
    assert bad["image_id"].tolist() == ["copy0", "copy1", "copy2"]


def test_a_copy_tells_that_a_person_of_the_held_out_set_is_in_training(run):
    train = [item("a", 1, person="A"), item("b", 2)]
    held_out = [item("94", 5, person="B"), item("95", 1, person="B"), item("96", 6, person="B"), item("97", 7)]
    train, held_out, notes, bad = run(train, held_out)
    assert (train.index.tolist(), held_out.index.tolist()) == (["a", "b"], ["97"])
    assert bad.empty
    assert rows_of(notes) == [
        ["94", "held_out", "left out", "a held-out image of a person who is also in training"],
        ["95", "held_out", "duplicate", "a copy of a; left out, for the same is in training"],
        ["96", "held_out", "left out", "a held-out image of a person who is also in training"],
    ]


def test_an_unknown_label_is_written_as_such_and_contradicts_nothing(run):
    train, _, _, bad = run([item("a", 1, None), item("b", 1, True), item("c", 2, False)], [item("d", 3)])
    assert train["smiling"].tolist() == [None, True, False]
    assert bad.empty


def test_a_held_out_set_of_copies_alone_is_refused(run):
    with pytest.raises(DataError, match="every held_out image is a copy of a training image"):
        run([item("a", 1)], [item("b", 1)])


def test_drawings_that_are_equal_by_chance_are_no_copies(run):
    train, held_out, notes, _ = run([item("a", 1), item("b", 1, False)], [item("c", 1)], equal_are_copies=False)
    assert (train.index.tolist(), held_out.index.tolist()) == (["a", "b"], ["c"])
    assert "person" not in train
    assert notes.empty


def test_people_are_written_whichever_image_is_the_first_with_one(run):
    train, held_out, *_ = run([item("a", 1), item("b", 2, person="7")], [item("c", 3)])
    assert train["person"].isna().tolist() == [True, False]
    assert train["person"]["b"] == "7"
    assert "person" not in held_out


def test_a_person_in_both_splits_is_left_out_of_the_held_out_set(run):
    train, held_out, notes, bad = run(
        [item("a", 1, person="7")], [item("b", 2, person="7"), item("c", 3, person="8"), item("d", 4)]
    )
    assert (train.index.tolist(), held_out.index.tolist()) == (["a"], ["c", "d"])
    assert rows_of(notes) == [["b", None, "left out", "a held-out image of a person who is also in training"]]
    assert bad.empty


def test_what_was_left_out_or_converted_is_listed_and_counted(run, caplog):
    caplog.set_level(logging.INFO)
    left = [LeftOut("a.heic", "a file of a type that is not read"), LeftOut("more", "a link to a folder")]
    notes = run([item("cmyk", 1), item("a", 2)], [item("b", 3)], left_out=left)[2]
    assert rows_of(notes) == [
        ["a.heic", None, "left out", "a file of a type that is not read"],
        ["more", None, "left out", "a link to a folder"],
        ["cmyk", "train", "converted", "CMYK to RGB"],
    ]
    lines = [record.getMessage() for record in caplog.records if "notes.parquet" in record.getMessage()]
    assert [line.split(",")[0] for line in lines] == ["left out: 2", "converted: 1"]
