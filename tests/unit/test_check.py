"""`check` opens the data of a config: what it says of a folder of photographs is known from how the folder was made."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline_lib.cli import main

GROUPS = {("female", "yes"): 60, ("female", "no"): 20, ("male", "yes"): 15, ("male", "no"): 45, ("unknown", "no"): 4}
TARGETS = [{"where": {"gender": value}, "attribute": "smiling", "rate": 0.5} for value in ("female", "male")]


@pytest.fixture
def folder(tmp_path):
    """Write photographs of one colour each with a table of words, and return a function that writes the config."""
    (tmp_path / "faces").mkdir()
    rows = [labels for labels, count in GROUPS.items() for _ in range(count)]
    random = np.random.default_rng(0)
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "gender", "smiling", "split"])
        for number, (gender, smiling) in enumerate(rows):
            color = tuple(map(int, random.integers(0, 256, 3)))
            Image.new("RGB", (48, 40), color).save(tmp_path / "faces" / f"{number:03d}.png")
            table.writerow([f"{number:03d}.png", gender, smiling, "train"])
        Image.new("RGB", (48, 40)).save(tmp_path / "faces/held-out.png")
        table.writerow(["held-out.png", "male", "", "held_out"])

    def write(targets=TARGETS, **data):
        config = {
            "run": "check",
            "data": {
                "reader": "folder",
                "folder": str(tmp_path / "faces"),
                "labels": str(tmp_path / "labels.csv"),
                "attributes": ["smiling", "gender"],
                "unknown": ["unknown"],
                "split_column": "split",
                "resolution": 32,
                **data,
            },
            "detectors": {"attributes": ["smiling", "gender"]},
            "rebalance": {"targets": targets, "edit": {"region": {"kind": "box", "shows": None}, "editor": "poisson"}},
            "retrain": None,
            "evaluate": {"utility": None},
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        return str(path)

    write.root = tmp_path
    return write


@pytest.fixture
def check(capsys, monkeypatch):
    """Return a function that checks a config, and returns what it prints, without borders and in single spaces."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(path, status=0):
        assert main(["check", path]) == status
        said = capsys.readouterr()
        if status:
            assert said.err.count("\n") == 1
            return said.err
        return re.sub(r"[\s│┃]+", " ", said.out)

    return run


@pytest.mark.slow
def test_it_counts_images_labels_and_edits(folder, check):
    said = check(folder())
    assert "144 images for training and 1 held out" in said
    assert re.search(r"gender.female: smiling 80 60 4 0\.750 0\.5 20 69 ", said)
    assert re.search(r"gender.male: smiling 60 15 4 0\.250 0\.5 15 75 ", said)
    assert "Largest gap of smiling between these groups: 0.500" in said
    assert "35 of 144 images are to be edited" in said
    assert "make unknown" not in said
    assert "Values of `gender` in all rows: female 80, male 61; unknown 4" in said


def test_it_says_which_labels_the_edits_make_unknown(folder, check):
    table = folder.root / "labels.csv"
    first, *rows = table.read_text().splitlines()
    table.write_text("\n".join([f"{first},hat,young", *(f"{row},1,0" for row in rows)]))
    path = folder(attributes=["smiling", "gender", "hat", "young"])
    assert "Edits of smiling make unknown: hat, young; name in `rebalance.edit.alters`" in check(path)
    config = yaml.safe_load((folder.root / "config.yaml").read_text())
    config["rebalance"]["edit"]["alters"] = {"smiling": ["young"]}
    (folder.root / "config.yaml").write_text(yaml.safe_dump(config))
    said = check(path)
    assert "Edits of smiling make unknown: young " in said
    assert "rebalance.edit.alters" not in said


def test_it_names_files_without_rows_and_rows_without_files(folder, check):
    (folder.root / "faces/000.png").rename(folder.root / "faces/stranger.png")
    (folder.root / "faces/phone.heic").touch()
    said = check(folder())
    found = {"without a row": "stranger.png", r"\.heic is no kind": "phone.heic", "a file": "000.png"}
    for reason, name in found.items():
        assert re.search(rf"{reason}.* 1 {name}", said)


def test_it_says_what_of_a_sample_cannot_be_used_and_what_is_converted(folder, check):
    damaged = folder.root / "faces/000.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    last = folder.root / "faces/held-out.png"
    Image.new("CMYK", (48, 40)).save(last, format="TIFF")
    said = check(folder())
    assert "1 of these cannot be used, such as 000.png: 000.png cannot be read" in said
    assert "1 of these are converted: CMYK without a profile to RGB" in said


def test_a_table_that_matches_no_file_is_refused(folder, check):
    for path in (folder.root / "faces").iterdir():
        path.rename(path.with_suffix(".jpg"))
    assert "of 144 of 144 training images there is no file or no mask, such as 000.png" in check(folder(), status=2)


def test_a_row_without_a_file_is_refused_where_its_split_has_too_many_of_them(folder, check):
    (folder.root / "faces/held-out.png").unlink()
    assert "of 1 of 1 held-out images there is no file or no mask, such as held-out.png" in check(folder(), status=2)


@pytest.mark.parametrize("share", [0.01, 0.2])
def test_a_sample_worse_than_chance_would_have_it_is_refused(folder, check, share):
    for number in range(0, 144, 2):
        Image.new("RGB", (30, 30)).save(folder.root / f"faces/{number:03d}.png")
    message = check(folder(bad_images=share), status=2)
    assert re.search(r"of 6\d training images cannot be used, such as 000.png \(000.png has 30 by 30 pixels", message)
    check(folder(bad_images=0.5))


def test_who_is_in_both_splits_is_said_to_be_left_out(folder, check):
    table = folder.root / "labels.csv"
    lines = table.read_text().splitlines()
    people = ["who", *(f"p{number}" for number in range(len(lines) - 2)), "p7"]
    Image.new("RGB", (48, 40), (1, 2, 3)).save(folder.root / "faces/other.png")
    lines, people = [*lines, "other.png,male,,held_out"], [*people, "q"]
    table.write_text("\n".join(f"{line},{person}" for line, person in zip(lines, people, strict=True)))
    said = check(folder(person_column="who"))
    assert "144 images for training and 1 held out" in said
    assert re.search(r"a person who is also in training 1 held-out.png", said)


def test_a_column_in_doubt_is_refused_by_row(folder, check):
    table = folder.root / "labels.csv"
    table.write_text(table.read_text().replace("003.png,female,yes", "003.png,female,perhaps"))
    message = check(folder(), status=2)
    assert "003.png" in message
    assert "`smiling` is 'perhaps'" in message


def test_a_target_without_donors_is_refused(folder, check):
    table = folder.root / "labels.csv"
    table.write_text(table.read_text().replace(",yes,", ",no,"))
    message = check(folder(), status=2)
    assert "rebalance.targets.0" in message
    assert "smiling" in message
