"""The subset of UTKFace is biased as published, and files without all labels are left out."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest

from pipeline_lib.cli import main
from pipeline_lib.data.readers.folder import FolderData
from pipeline_lib.data.utkface import biased, read_names


@pytest.fixture
def faces(tmp_path):
    folder = tmp_path / "UTKFace"
    folder.mkdir()
    ages, races = (5, 15, 30), (0, 0, 1, 2)
    for number, (age, gender, race) in enumerate(itertools.product(ages, (0, 1), races * 60)):
        (folder / f"{age}_{gender}_{race}_{number:017d}.jpg.chip.jpg").touch()
    (folder / "61_1_20170109142408075.jpg").touch()  # a published name without a race
    (folder / "notes.txt").touch()
    return folder


@pytest.mark.parametrize(("bias", "column"), [("race", "white"), ("age", "adult")])
def test_a_tenth_of_the_training_images_contradict_the_bias_and_the_test_keeps_its_rates(faces, bias, column):
    images = read_names(faces)
    assert len(images) == 1440
    found = biased(images, bias, 0)
    train, held_out = (found[found["split"] == name] for name in ("train", "held_out"))
    for value in (0, 1):
        group = train[train[column] == value]
        follows = (group["female"] != value).sum()
        assert len(group) - follows == int(0.1 * follows) > 0
    assert len(held_out) == pytest.approx(0.2 * (1440 if bias == "race" else 960), rel=0.15)
    assert held_out.groupby(column)["female"].mean().tolist() == pytest.approx([0.5, 0.5], abs=0.12)
    assert not set(train["image"]) & set(held_out["image"])
    if bias == "age":
        assert not found["image"].str.startswith("15_").any()


@pytest.mark.slow
def test_the_table_is_one_that_the_folder_reader_takes(faces, tmp_path, capsys):
    assert main(["tools", "utkface", str(faces), str(tmp_path / "race.csv")]) == 0
    table = pd.read_csv(tmp_path / "race.csv")
    assert list(table) == ["image", "female", "white", "split"]
    assert set(table["female"]) == set(table["white"]) == {0, 1}
    assert "images to train on" in capsys.readouterr().out
    settings = FolderData(
        reader="folder",
        folder=faces,
        labels=tmp_path / "race.csv",
        attributes=["female", "white=1"],
        split_column="split",
    )
    source = settings.open()
    found = {item.image_id: [*item.attributes.values()] for item in (*source.train, *source.held_out)}
    assert found == {image: [bool(female), bool(white)] for image, female, white, _ in table.itertuples(index=False)}
    assert {item.image_id for item in source.held_out} == set(table["image"][table["split"] == "held_out"])
    assert "61_1_20170109142408075.jpg" in {left.name for left in source.left_out}


def test_a_folder_without_such_files_is_named(tmp_path, capsys):
    assert main(["tools", "utkface", str(tmp_path), str(tmp_path / "race.csv")]) == 2
    assert "no files named <age>_<gender>_<race>_<date>.jpg" in capsys.readouterr().err
    assert not (tmp_path / "race.csv").exists()
