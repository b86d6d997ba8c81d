"""A Hugging Face dataset is read from Arrow and from Parquet alike, every label with its own image."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline_lib.config import HuggingFaceData
from pipeline_lib.data import huggingface as reader
from pipeline_lib.data.huggingface import open_huggingface
from pipeline_lib.data.sources import BadImageError
from pipeline_lib.runtime.errors import DataError

COLORS = np.random.default_rng(0).integers(0, 256, (60, 3))


def encoded(color):
    content = io.BytesIO()
    Image.new("RGB", (40, 36), tuple(map(int, color))).save(content, "png")
    return content.getvalue()


def table_of(rows, labels):
    images = [{"bytes": encoded(COLORS[row]), "path": None} for row in rows]
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({"image": pa.array(images, image_type), "smiling": pa.array(labels)})


def write_arrow(folder, split, number, table):
    (folder / split).mkdir(parents=True, exist_ok=True)
    path = folder / split / f"data-{number:05d}-of-00002.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=7)


def write_parquet(folder, split, number, table):
    (folder / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "data" / f"{split}-{number:05d}-of-00002.parquet", row_group_size=7)


def settings_of(folder, **changes):
    given = {"reader": "huggingface", "folder": folder, "attributes": ["smiling"], "resolution": 32}
    return HuggingFaceData(**(given | changes))


@pytest.mark.parametrize("write", [write_arrow, write_parquet])
@pytest.mark.parametrize("spell", [bool, int, lambda value: 1 if value else -1])
def test_every_image_comes_with_its_own_label(tmp_path, monkeypatch, write, spell):
    monkeypatch.setattr(reader, "ROWS", 8)
    smiling = [row % 3 == 0 for row in range(60)]
    for split, number, rows in (("train", 0, range(30)), ("train", 1, range(30, 50)), ("test", 0, range(50, 60))):
        write(tmp_path, split, number, table_of(rows, [spell(smiling[row]) for row in rows]))
    source = open_huggingface(settings_of(tmp_path))
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
    source = open_huggingface(settings_of(tmp_path))
    assert (source.read(source.train[0]).image == COLORS[0]).all()
    with pytest.raises(BadImageError, match=r"row 1 of train-.*parquet contains no image"):
        source.read(source.train[1])
    with pytest.raises(BadImageError, match="the image cannot be read"):
        source.read(source.train[2])


@pytest.mark.parametrize("write", [write_arrow, write_parquet])
@pytest.mark.parametrize(
    ("changes", "labels", "complaint"),
    [
        ({"held_out": "validation"}, [1, 0], r"neither validation/\*.arrow nor validation-\*.parquet"),
        ({"image_column": "picture"}, [1, 0], "no column picture; it has image, smiling"),
        ({"attributes": ["smiling", "male"]}, [1, 0], "no column male"),
        ({}, [1, 2], "`smiling` of row 1 is 2, neither true nor false"),
        ({}, [1, None], "`smiling` of row 1 is None, neither true nor false"),
    ],
)
def test_a_dataset_that_does_not_fit_is_refused(tmp_path, write, changes, labels, complaint):
    for split in ("train", "test"):
        write(tmp_path, split, 0, table_of(range(2), labels))
    with pytest.raises(DataError, match=complaint):
        open_huggingface(settings_of(tmp_path, **changes))


@pytest.mark.parametrize(("write", "kind"), [(write_arrow, "Arrow"), (write_parquet, "Parquet")])
def test_a_damaged_file_is_named(tmp_path, write, kind):
    write(tmp_path, "train", 0, table_of(range(2), [1, 0]))
    path = next(path for path in tmp_path.rglob("*") if path.is_file())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=rf"00000-of-00002.\w+: not a readable {kind} file"):
        open_huggingface(settings_of(tmp_path))
