"""A Hugging Face dataset is read from Arrow and from Parquet alike, every label with its own image."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline_lib.data.readers import huggingface as reader
from pipeline_lib.data.readers.huggingface import HuggingFaceData
from pipeline_lib.data.sources import BadImageError
from pipeline_lib.runtime.errors import DataError

COLORS = np.random.default_rng(0).integers(0, 256, (60, 3))


def encoded(color):
    content = io.BytesIO()
    Image.new("RGB", (40, 36), tuple(map(int, color))).save(content, "png")
    return content.getvalue()


def table_of(rows, labels, **columns):
    images = [{"bytes": encoded(COLORS[row]), "path": None} for row in rows]
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({"image": pa.array(images, image_type), "smiling": pa.array(labels), **columns})


def write_arrow(folder, split, number, table, count=1):
    (folder / split).mkdir(parents=True, exist_ok=True)
    path = folder / split / f"data-{number:05d}-of-{count:05d}.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=7)


def write_parquet(folder, split, number, table, count=1):
    write_at(folder / "data" / f"{split}-{number:05d}-of-{count:05d}.parquet", table)


def write_at(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=7)


def with_classes(table, **names):
    """Return a table whose metadata name classes, as `datasets` writes them."""
    features = {column: {"names": classes, "_type": "ClassLabel"} for column, classes in names.items()}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def settings_of(folder, **changes):
    given = {"reader": "huggingface", "folder": folder, "attributes": ["smiling"], "resolution": 32}
    return HuggingFaceData(**(given | changes))


@pytest.mark.parametrize("write", [write_arrow, write_parquet])
@pytest.mark.parametrize("spell", [bool, int, lambda value: 1 if value else -1])
def test_every_image_comes_with_its_own_label(tmp_path, monkeypatch, write, spell):
    monkeypatch.setattr(reader, "ROWS", 8)
    smiling = [row % 3 == 0 for row in range(60)]
    for split, number, rows in (("train", 0, range(30)), ("train", 1, range(30, 50)), ("test", 0, range(50, 60))):
        write(tmp_path, split, number, table_of(rows, [spell(smiling[row]) for row in rows]), 1 + (split == "train"))
    source = settings_of(tmp_path).open()
    assert (len(source.train), len(source.held_out)) == (50, 10)
    assert source.train[31].image_id == "train-00000031"
    for row, item in enumerate([*source.train, *source.held_out]):
        record = source.read(item)
        assert (record.image == COLORS[row]).all()
        assert item.attributes == {"smiling": smiling[row]}
        assert record.codes is None


def test_an_image_may_lie_beside_its_table_or_nowhere(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/face.png").write_bytes(encoded(COLORS[0]))
    images = [{"bytes": None, "path": "face.png"}, {"bytes": None, "path": None}, {"bytes": b"no image", "path": None}]
    for split in ("train", "test"):
        write_parquet(tmp_path, split, 0, pa.table({"image": images, "smiling": [1, 0, 1]}))
    source = settings_of(tmp_path).open()
    assert (source.read(source.train[0]).image == COLORS[0]).all()
    with pytest.raises(BadImageError, match=r"row 1 of train-.*parquet contains no image"):
        source.read(source.train[1])
    with pytest.raises(BadImageError, match="the image cannot be read"):
        source.read(source.train[2])


@pytest.mark.parametrize("write", [write_arrow, write_parquet])
@pytest.mark.parametrize(
    ("changes", "labels", "complaint"),
    [
        ({"held_out": "validation"}, [1, 0], "no split validation; there are test, train"),
        ({"train": "fit", "held_out": "validation"}, [1, 0], "no split fit; there are test, train"),
        ({"configuration": "small"}, [1, 0], "no configuration small; it has default;"),
        ({"image_column": "picture"}, [1, 0], "no column `picture`; it has image, smiling"),
        ({"image_column": "smiling"}, [1, 0], "`smiling` contains no images but int64"),
        ({"attributes": ["smiling", "male"]}, [1, 0], "no column `male`"),
        ({"attributes": ["smiling=2"]}, [1, 0], "no cell of `smiling` is '2', .*; use one of '0', '1'"),
        ({}, [1, 2], "row 1: `smiling` is '2', neither true nor false"),
        ({}, [0, -1], "row 1: `smiling` is -1, and 0 in other rows"),
    ],
)
def test_a_dataset_that_does_not_fit_is_refused(tmp_path, write, changes, labels, complaint):
    for split in ("train", "test"):
        write(tmp_path, split, 0, table_of(range(2), labels))
    with pytest.raises(DataError, match=complaint):
        settings_of(tmp_path, **changes).open()


@pytest.mark.parametrize("write", [write_arrow, write_parquet])
def test_a_damaged_file_is_named(tmp_path, write):
    for split in ("test", "train"):
        write(tmp_path, split, 0, table_of(range(2), [1, 0]))
    path = next(path for path in tmp_path.rglob("*train*/*" if write is write_arrow else "train-*"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"00000-of-00001.\w+: not a readable dataset file"):
        settings_of(tmp_path).open()


def write_splits(folder, name, **sizes):
    """Write a Parquet file for each split; in the training split every image is smiling, in the others none."""
    for split, size in sizes.items():
        write_at(folder / name.format(split=split), table_of(range(size), [int(split == "train")] * size))


@pytest.mark.parametrize(
    "name",
    [
        "{split}-00000-of-00001.parquet",
        "data/{split}-00000-of-00001-d405faba4f4b9b85.parquet",
        "default/{split}/0000.parquet",
        "{split}/faces.parquet",
        "data/{split}.parquet",
    ],
)
def test_the_layouts_that_people_have_are_read(tmp_path, name):
    write_splits(tmp_path, name, train=5, test=3)
    source = settings_of(tmp_path).open()
    assert [item.attributes["smiling"] for item in source.train] == [True] * 5
    assert [item.attributes["smiling"] for item in source.held_out] == [False] * 3
    assert (source.read(source.train[4]).image == COLORS[4]).all()


def test_a_split_has_none_of_the_files_of_another_whose_name_begins_like_it(tmp_path):
    sizes = {"train": 5, "train_augmented": 7, "test": 3}
    write_splits(tmp_path, "data/{split}-00000-of-00001.parquet", **sizes)
    source = settings_of(tmp_path).open()
    assert (len(source.train), len(source.held_out)) == (5, 3)
    assert [left.name for left in source.left_out] == ["data/train_augmented-00000-of-00001.parquet"]
    source = settings_of(tmp_path, train="train_augmented").open()
    assert len(source.train) == 7


def test_one_of_several_configurations_is_read_and_it_has_to_be_chosen(tmp_path):
    for configuration, size in (("0.25", 4), ("1.25", 6)):
        write_splits(tmp_path / configuration, "{split}-00000-of-00001-ab12.parquet", train=size, test=2)
    entries = "".join(
        f"- config_name: '{name}'\n  data_files:\n  - split: train\n    path: {name}/train-*\n"
        f"  - split: test\n    path:\n    - {name}/test-*\n"
        for name in ("0.25", "1.25")
    )
    (tmp_path / "README.md").write_text(f"---\nlicense: mit\nconfigs:\n{entries}---\n# Faces\n")
    with pytest.raises(DataError, match=r"several configurations, 0.25, 1.25; choose one by `data.configuration`"):
        settings_of(tmp_path).open()
    source = settings_of(tmp_path, configuration=1.25).open()
    assert (len(source.train), len(source.held_out)) == (6, 2)


def test_the_card_decides_what_belongs_to_a_split(tmp_path):
    for name, size in (("a", 3), ("b", 2), ("train", 5), ("test", 4)):
        write_at(tmp_path / f"{name}.parquet", table_of(range(size), [1] * size))
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - split: train\n    path: [a.parquet, train.parquet]\n  - split: test\n    path: b.parquet\n---\n"
    )
    source = settings_of(tmp_path).open()
    assert (len(source.train), len(source.held_out)) == (8, 2)
    (tmp_path / "b.parquet").unlink()
    with pytest.raises(DataError, match=r"not read by datasets .*b\.parquet"):
        settings_of(tmp_path).open()
    card = tmp_path / "README.md"
    with pytest.raises(DataError, match=r"a.parquet: this file is in the splits train and test"):
        card.write_text(card.read_text().replace("b.parquet", "a.parquet"))
        settings_of(tmp_path).open()


@pytest.mark.parametrize(
    "files",
    [
        "  data_files:\n  - {split: train, path: a/*}\n  - {split: test, path: [b/*]}",
        "  data_dir: c",
    ],
)
def test_a_card_may_name_files_in_several_forms(tmp_path, files):
    for name, size in (("a/x", 3), ("a/y", 2), ("b/x", 4), ("c/train", 5), ("c/test", 4)):
        write_at(tmp_path / f"{name}.parquet", table_of(range(size), [1] * size))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n{files}\n---\n")
    source = settings_of(tmp_path).open()
    assert (len(source.train), len(source.held_out)) == (5, 4)


def test_files_of_another_format_are_refused(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("image,smiling\n")
    with pytest.raises(DataError, match=r"train.csv: neither Parquet nor Arrow"):
        settings_of(tmp_path).open()


def test_the_missing_library_is_named_with_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs datasets; run `pip install latent-rebalance\[huggingface\]`"):
        settings_of(tmp_path).open()


@pytest.mark.parametrize("write", [write_arrow, write_parquet])
@pytest.mark.parametrize("numbers", [(0,), (1,), (0, 2)])
def test_a_missing_shard_is_refused(tmp_path, write, numbers):
    write(tmp_path, "test", 0, table_of(range(2), [1, 0]))
    for number in numbers:
        write(tmp_path, "train", number, table_of(range(2), [1, 0]), 2 + (2 in numbers))
    with pytest.raises(DataError, match=f"there are the numbers {', '.join(map(str, numbers))};"):
        settings_of(tmp_path).open()


def test_shards_of_two_versions_are_refused(tmp_path):
    for version in ("aaaa", "bbbb"):
        write_splits(tmp_path, f"data/{{split}}-00000-of-00001-{version}.parquet", train=2, test=2)
    with pytest.raises(DataError, match=r"there are the numbers 0, 0; .* remove those of another version"):
        settings_of(tmp_path).open()


@pytest.mark.parametrize(("names", "smiling"), [(["yes", "no"], [True, False]), (["0", "1"], [False, True])])
def test_the_names_of_classes_say_what_is_true(tmp_path, names, smiling):
    table = with_classes(table_of(range(4), [0, 1, -1, None]), smiling=names)
    for split in ("train", "test"):
        write_parquet(tmp_path, split, 0, table)
    source = settings_of(tmp_path).open()
    assert [item.attributes["smiling"] for item in source.train] == [*smiling, None, None]


def test_the_card_names_the_classes_of_files_that_do_not(tmp_path):
    for split in ("train", "test"):
        write_parquet(tmp_path, split, 0, table_of(range(2), [0, 1]))
    card = "---\ndataset_info:\n  features:\n  - name: smiling\n    dtype:\n      class_label:\n        names:\n"
    (tmp_path / "README.md").write_text(card + "          '0': yes\n          '1': no\n---\n")
    source = settings_of(tmp_path).open()
    assert [item.attributes["smiling"] for item in source.train] == [True, False]


@pytest.mark.parametrize("write", [write_arrow, write_parquet])
def test_columns_are_found_in_either_unicode_form(tmp_path, write):
    rows = table_of(range(2), [1, 0]).rename_columns(["Fla\u0308che", "la\u0308chelnd"])
    for split in ("train", "test"):
        write(tmp_path, split, 0, with_classes(rows, **{"la\u0308chelnd": ["yes", "no"]}))
    source = settings_of(tmp_path, image_column="Fl\u00e4che", attributes=["l\u00e4chelnd"]).open()
    assert [item.attributes["l\u00e4chelnd"] for item in source.train] == [False, True]
    assert (source.read(source.train[1]).image == COLORS[1]).all()


def test_cells_that_mean_unknown_name_nobody_and_may_be_written_as_fractions(tmp_path):
    for split in ("train", "test"):
        write_parquet(tmp_path, split, 0, table_of(range(3), [1.0, -1.0, 0.0], who=[-1, -1, 7 + (split == "test")]))
    source = settings_of(tmp_path, person_column="who", unknown=[-1.0]).open()
    assert [item.person for item in (*source.train, *source.held_out)] == [None, None, "7", None, None, "8"]
    assert [item.attributes["smiling"] for item in source.train] == [True, None, False]


def test_a_column_that_is_unknown_everywhere_has_no_value(tmp_path):
    for split in ("train", "test"):
        write_parquet(tmp_path, split, 0, table_of(range(2), ["", "?"]))
    with pytest.raises(DataError, match="no cell of `smiling` is 'broad'"):
        settings_of(tmp_path, attributes=["smiling=broad"], unknown=["?"]).open()


def test_a_card_that_cannot_be_read_is_refused(tmp_path):
    for split in ("train", "test"):
        write_arrow(tmp_path, split, 0, table_of(range(2), [1, 0]))
    (tmp_path / "README.md").write_bytes("---\nlicense: \u00fc\n---".encode("latin-1"))
    with pytest.raises(DataError, match=r"not read by datasets .*; correct the folder or its card"):
        settings_of(tmp_path).open()


def test_classes_and_texts_are_attributes_by_their_value(tmp_path):
    table = table_of(range(4), [1, 0, 1, 0], gender=[0, 1, 1, -1], race=["Black", "White", None, "unsure"])
    for split in ("train", "test"):
        write_parquet(tmp_path, split, 0, with_classes(table, gender=["Male", "Female"]))
    settings = settings_of(tmp_path, attributes=["gender=Female", "race=Black"], unknown=["unsure"])
    found = [item.attributes for item in settings.open().train]
    assert [row["gender=Female"] for row in found] == [False, True, True, None]
    assert [row["race=Black"] for row in found] == [True, False, None, None]
    assert settings.open().values == {
        "gender": {"Male": 2, "Female": 4, "": 2},
        "race": {"Black": 2, "White": 2, "unsure": 2, "": 2},
    }
    with pytest.raises(DataError, match="names 'Unsure', which no cell of gender, race is; did you mean 'unsure'"):
        settings.model_copy(update={"unknown": ["Unsure"]}).open()
    with pytest.raises(DataError, match="the classes Male, Female, neither true nor false; write one as gender=Female"):
        settings_of(tmp_path, attributes=["gender"]).open()
    settings = settings_of(tmp_path, attributes=["race=Blakc"], unknown=["unsure"])
    with pytest.raises(DataError, match=r"no cell of `race` is 'Blakc', .*; use one of 'Black', 'White'"):
        settings.open()


@pytest.mark.parametrize("unknown", [-1, 0])
def test_the_config_says_which_cell_means_unknown(tmp_path, unknown):
    write_parquet(tmp_path, "train", 0, table_of(range(3), [1, 0, -1]))
    write_parquet(tmp_path, "test", 0, table_of(range(2), [1, None]))
    source = settings_of(tmp_path, unknown=[unknown]).open()
    of = {1: True, unknown: None}
    assert [item.attributes["smiling"] for item in source.train] == [of.get(cell, False) for cell in (1, 0, -1)]
    assert source.held_out[1].attributes == {"smiling": None}


def test_minus_one_in_one_file_and_zero_in_another_are_refused_too(tmp_path):
    write_parquet(tmp_path, "train", 0, table_of(range(2), [1, 0]))
    write_parquet(tmp_path, "test", 0, table_of(range(2), [1, -1]))
    with pytest.raises(DataError, match=r"test-00000-of-00001.parquet: row 1: `smiling` is -1, and 0 in other rows"):
        settings_of(tmp_path).open()


def test_a_person_is_known_by_a_column_and_stands_in_one_split(tmp_path):
    write_parquet(tmp_path, "train", 0, table_of(range(3), [1, 0, 1], who=[7, 8, None]))
    write_parquet(tmp_path, "test", 0, table_of(range(1), [1], who=[9]))
    settings = settings_of(tmp_path, person_column="who")
    source = settings.open()
    assert [item.person for item in (*source.train, *source.held_out)] == ["7", "8", None, "9"]
    write_parquet(tmp_path, "test", 0, table_of(range(1), [1], who=[8]))
    source = settings.open()
    assert (len(source.train), len(source.held_out)) == (3, 0)
    assert [left.name for left in source.left_out] == ["test-00000000"]


def test_what_was_saved_to_disk_is_read_as_datasets_reads_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value, load_from_disk

    features = Features({"image": Image(), "smiling": ClassLabel(names=["yes", "no"]), "name": Value("string")})
    images = [{"bytes": encoded(color), "path": None} for color in COLORS]
    rows = {"image": images, "smiling": [row % 2 for row in range(60)], "name": [str(row) for row in range(60)]}
    rows = Dataset.from_dict(rows, features)
    folder = tmp_path / "saved"
    both = DatasetDict(train=rows.select(range(0, 50, 2)), test=rows.select(range(50, 60)))
    both.save_to_disk(folder, num_shards={"train": 2, "test": 1})
    load_from_disk(folder)["train"].map(lambda row: {"name": row["name"] * 2})
    assert list((folder / "train").glob("cache-*.arrow"))

    source, wanted = settings_of(folder).open(), load_from_disk(folder)
    for items, split in ((source.train, "train"), (source.held_out, "test")):
        truth = [row["smiling"] == 0 for row in wanted[split]]
        assert [item.attributes["smiling"] for item in items] == truth
        colors = [np.asarray(row["image"])[0, 0].tolist() for row in wanted[split]]
        assert [source.read(item).image[0, 0].tolist() for item in items] == colors
    assert [left.name.startswith("train/cache-") for left in source.left_out] == [True]

    (folder / "train/data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"not read by datasets .*data-00001-of-00002.arrow"):
        settings_of(folder).open()
