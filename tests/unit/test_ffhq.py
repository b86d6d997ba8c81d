"""FFHQ is divided as its JSON says, and class folders as they are named."""

from __future__ import annotations

import json
import os
import unicodedata

import pytest
from PIL import Image

from pipeline_lib.data.readers.class_folders import ClassFolderData
from pipeline_lib.data.readers.ffhq import FFHQData
from pipeline_lib.runtime.errors import DataError

NUMBERS = (0, 1, 60000)


@pytest.fixture
def ffhq(tmp_path):
    """Three images in FFHQ's layout; the last one is of its validation split."""
    entries = {}
    for number in NUMBERS:
        entries[str(number)] = {"category": "training" if number < 60000 else "validation"}
        for entry, folder, side in (("image", "images1024x1024", 64), ("thumbnail", "thumbnails128x128", 32)):
            path = f"{folder}/{number // 1000 * 1000:05d}/{number:05d}.png"
            entries[str(number)][entry] = {"file_path": path}
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (side, side), (number % 200, side, 0)).save(tmp_path / path)
    (tmp_path / "ffhq-dataset-v2.json").write_text(json.dumps(entries))
    (tmp_path / "labels.csv").write_text("image_number,smiling\n00000,1\n1,0\n60000,1\n")
    return tmp_path


def settings_of(folder, **changes):
    given = {"reader": "ffhq", "folder": folder, "metadata": folder / "ffhq-dataset-v2.json"}
    given |= {"labels": folder / "labels.csv", "attributes": ["smiling"], "resolution": 32}
    return FFHQData(**(given | changes))


@pytest.mark.parametrize(("files", "side"), [("images", 64), ("thumbnails", 32)])
def test_ffhq_is_divided_as_its_json_says(ffhq, files, side):
    source = settings_of(ffhq, files=files).open()
    assert [item.image_id for item in source.train] == ["00000", "00001"]
    assert [item.image_id for item in source.held_out] == ["60000"]
    assert source.read(source.train[1]).image[0, 0].tolist() == [1, side, 0]
    assert source.train[1].attributes == {"smiling": False}
    assert [item.image_id for item in settings_of(ffhq, images=1).open().train] == ["00000"]


@pytest.mark.parametrize("text", ["{", "[]"])
def test_labels_of_no_image_and_a_broken_json_are_refused(ffhq, text):
    (ffhq / "labels.csv").write_text("image_number,smiling\n7,1\n")
    with pytest.raises(DataError, match=r"image 7 has no entry in .*ffhq-dataset-v2.json"):
        settings_of(ffhq).open()
    (ffhq / "ffhq-dataset-v2.json").write_text(text)
    with pytest.raises(DataError, match=r"ffhq-dataset-v2.json: cannot be read as JSON"):
        settings_of(ffhq).open()


def test_a_number_may_be_padded_or_a_fraction_but_is_one_image(ffhq):
    (ffhq / "labels.csv").write_text("image_number,smiling\n00001.0,1\n60000,0\n")
    source = settings_of(ffhq).open()
    assert [item.image_id for item in (*source.train, *source.held_out)] == ["00001", "60000"]
    assert [(left.name, left.reason) for left in source.left_out] == [
        ("00000", "an image without a row in the label table")
    ]
    (ffhq / "labels.csv").write_text("image_number,smiling\n00001,1\n1,0\n")
    with pytest.raises(DataError, match="`1` appears in two rows, 1 and 2"):
        settings_of(ffhq).open()
    (ffhq / "labels.csv").write_text("image_number,smiling\n00001.png,1\n")
    with pytest.raises(DataError, match=r"row 1 is '00001.png', not the number of an image"):
        settings_of(ffhq).open()


def test_cells_of_the_label_table_mean_what_the_config_says(ffhq):
    (ffhq / "labels.csv").write_text("image_number,smiling,race,who\n0,-1,A,p\n1,0,B,p\n60000,1,?,q\n")
    given = {"attributes": ["smiling", "race=A"], "unknown": [-1, "?"], "person_column": "who"}
    source = settings_of(ffhq, **given).open()
    assert [item.attributes for item in (*source.train, *source.held_out)] == [
        {"smiling": None, "race=A": True},
        {"smiling": False, "race=A": False},
        {"smiling": True, "race=A": None},
    ]
    assert [item.person for item in (*source.train, *source.held_out)] == ["p", "p", "q"]
    (ffhq / "labels.csv").write_text("image_number,smiling,who\n0,1,p\n1,0,p\n60000,1,p\n")
    source = settings_of(ffhq, person_column="who").open()
    assert (len(source.train), len(source.held_out)) == (2, 0)
    assert {left.name for left in source.left_out} >= {"60000"}


@pytest.fixture
def scenes(tmp_path):
    for name, count in (("church_outdoor_train", 6), ("tower_train", 4), ("bridge_train", 2)):
        (tmp_path / name / "a").mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (40, 40)).save(tmp_path / name / "a" / f"{number}.webp")
        (tmp_path / name / "notes.txt").touch()
    return tmp_path


def test_the_folder_is_the_label(scenes):
    attributes = {"church": ["church_outdoor_train"], "tall": ["church_outdoor_train", "tower_train"]}
    settings = ClassFolderData(
        reader="class-folders",
        folder=scenes,
        attributes=attributes,
        others=["bridge_train"],
        held_out=0.25,
        resolution=32,
    )
    source = settings.open()
    assert (len(source.train), len(source.held_out)) == (9, 3)
    for item in (*source.train, *source.held_out):
        folder = item.image_id.split("/")[0]
        truth = {"church": folder.startswith("church"), "tall": not folder.startswith("bridge")}
        assert item.attributes == truth


def test_a_folder_without_images_is_refused(scenes):
    (scenes / "empty").mkdir()
    settings = ClassFolderData(reader="class-folders", folder=scenes, attributes={"church": ["empty"]}, resolution=32)
    with pytest.raises(DataError, match=r"empty: no images \(.avif, .bmp, .gif, .jpeg"):
        settings.open()


def test_what_programs_left_among_classes_is_not_read_but_listed(scenes):
    settings = ClassFolderData(
        reader="class-folders",
        folder=scenes,
        attributes={"tower": ["tower_train"]},
        others=["bridge_train", "groups/abbey"],
    )
    (scenes / "groups/abbey").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(scenes / "groups/abbey/0.gif")
    known = {item.image_id for source in [settings.open()] for item in (*source.train, *source.held_out)}
    for name in ("tower_train/.ipynb_checkpoints", "bridge_train/a/@eaDir", "__MACOSX"):
        (scenes / name).mkdir()
        Image.new("RGB", (40, 40)).save(scenes / name / "0.jpg")
    (scenes / "tower_train/a/._0.webp").touch()
    (scenes / "tower_train/7.heic").touch()
    strange_folders, strange_files = ("church_outdoor_train", "groups/x"), ("stray.png", "groups/0.png")
    for name in (*strange_files, "groups/x/y/0.png", "groups/x/y/1.png", os.fsdecode(b"groups/abbey/caf\xe9.txt")):
        (scenes / name).parent.mkdir(parents=True, exist_ok=True)
        (scenes / name).touch()
    (scenes / "bridge_train/towers").symlink_to(scenes / "tower_train")
    source = settings.open()
    assert {item.image_id for item in (*source.train, *source.held_out)} == known
    assert {(left.name, left.reason) for left in source.left_out} == {
        ("__MACOSX", "a hidden folder, which is not searched"),
        *((name, "a folder that is in no class of `data.attributes` or `data.others`") for name in strange_folders),
        *((name, "a file that is in no class of `data.attributes` or `data.others`") for name in strange_files),
        ("groups/abbey/caf\ufffd.txt", "a file of a type that is not read"),
        ("tower_train/.ipynb_checkpoints", "a hidden folder, which is not searched"),
        ("bridge_train/a/@eaDir", "a hidden folder, which is not searched"),
        ("tower_train/a/._0.webp", "a hidden file"),
        ("bridge_train/towers", "a link to a folder, which is not searched"),
        *((name, "a file of a type that is not read") for name in ("tower_train/7.heic", "tower_train/notes.txt")),
        ("bridge_train/notes.txt", "a file of a type that is not read"),
    }


def test_an_image_in_two_classes_is_refused_and_one_class_may_be_named_twice(scenes):
    def settings(**classes):
        return ClassFolderData(reader="class-folders", folder=scenes, attributes=classes, resolution=32)

    nested = settings(tower=["tower_train"], near=["tower_train/a"])
    with pytest.raises(DataError, match=r"0.webp: this image is in two classes, tower_train and tower_train/a;"):
        nested.open()
    source = settings(tower=["tower_train"], tall=["tower_train/", "bridge_train"]).open()
    assert len(source.train) + len(source.held_out) == 6
    assert all(item.attributes["tall"] for item in source.train)


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_a_class_folder_is_found_in_whichever_unicode_form_the_disk_has_it(scenes, on_disk):
    (scenes / "tower_train").rename(scenes / unicodedata.normalize(on_disk, "t\u00fcrme"))
    given = {"reader": "class-folders", "folder": scenes, "resolution": 32}
    source = ClassFolderData(**given, attributes={"tower": ["t\u00fcrme"]}).open()
    found = [*source.train, *source.held_out]
    assert {item.image_id for item in found} == {f"t\u00fcrme/a/{number}.webp" for number in range(4)}
    assert source.read(found[0]).image.shape == (32, 32, 3)
    (scenes / unicodedata.normalize("NFD" if on_disk == "NFC" else "NFC", "t\u00fcrme")).mkdir()
    with pytest.raises(DataError, match="two folders have this name"):
        ClassFolderData(**given, attributes={"tower": ["t\u00fcrme"]}).open()
    with pytest.raises(DataError, match="towers: no such folder"):
        ClassFolderData(**given, attributes={"tower": ["towers"]}).open()


def test_an_image_whose_name_is_not_utf8_is_refused(scenes):
    (scenes / "tower_train/a/0.webp").rename(scenes / os.fsdecode(b"tower_train/a/caf\xe9.webp"))
    settings = ClassFolderData(reader="class-folders", folder=scenes, attributes={"tower": ["tower_train"]})
    with pytest.raises(DataError, match=r"tower_train/a/caf\ufffd.webp.*not UTF-8"):
        settings.open()


def test_images_without_a_file_are_known_before_they_are_read(ffhq):
    source = settings_of(ffhq).open()
    assert source.missing == []
    source.train[0].origin.unlink()
    assert settings_of(ffhq).open().missing == [source.train[0].image_id]
