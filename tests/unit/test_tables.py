"""Tables keep their schema and say what they are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline_lib.data.tables import (
    ROWS_PER_GROUP,
    SCHEMAS,
    attribute_columns,
    read_table,
    read_tables,
    table_writer,
    write_table,
)
from pipeline_lib.runtime.errors import DataError

ASSEMBLED = pd.DataFrame(
    {
        "image_id": ["a", "b", "c"],
        "edited": [False, True, False],
        "smiling": pd.array([True, None, False], dtype="boolean"),
    }
)


def test_an_open_table_keeps_its_attributes_and_what_is_unknown_of_them(tmp_path):
    write_table(tmp_path / "labels.parquet", "assembled", ASSEMBLED)
    found = read_table(tmp_path / "labels.parquet", "assembled")
    assert attribute_columns(found, "assembled") == ["smiling"]
    assert found["smiling"].tolist() == [True, None, False]
    assert found["edited"].tolist() == [False, True, False]


def test_the_file_says_its_kind_and_what_made_it(tmp_path):
    write_table(tmp_path / "labels.parquet", "assembled", ASSEMBLED, {"run": "toy", "config_digest": "0f"})
    metadata = pq.read_schema(tmp_path / "labels.parquet").metadata
    assert metadata == {b"kind": b"assembled", b"schema_version": b"1", b"run": b"toy", b"config_digest": b"0f"}


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_a_table_without_rows_keeps_every_column_and_type(tmp_path, kind):
    write_table(tmp_path / "empty.parquet", kind, pd.DataFrame(columns=SCHEMAS[kind].names))
    assert pq.read_schema(tmp_path / "empty.parquet").equals(SCHEMAS[kind])
    assert read_table(tmp_path / "empty.parquet", kind).empty


def test_a_column_that_no_schema_names_is_refused(tmp_path):
    with pytest.raises(ValueError, match="masks table has no columns"):
        write_table(tmp_path / "masks.parquet", "masks", pd.DataFrame({"image_id": ["a"], "codes": [b""], "more": [1]}))
    assert list(tmp_path.iterdir()) == []


def test_several_tables_are_read_as_one(tmp_path):
    paths = [tmp_path / f"{number}.parquet" for number in range(2)]
    for number, path in enumerate(paths):
        write_table(path, "scores", pd.DataFrame({"image_id": [f"{number}"], "smiling": np.float32([number / 4])}))
    found = read_tables(paths, "scores")
    assert found["image_id"].tolist() == ["0", "1"]
    assert found["smiling"].tolist() == [0, 0.25]


@pytest.mark.parametrize("content", [None, b"", b"no parquet", "half"])
def test_an_unreadable_table_is_named_in_one_line(tmp_path, content):
    path = tmp_path / "labels.parquet"
    write_table(path, "assembled", ASSEMBLED)
    whole = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(DataError) as caught:
        read_table(path, "assembled")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_table_of_another_kind_is_refused(tmp_path):
    write_table(tmp_path / "labels.parquet", "assembled", ASSEMBLED)
    with pytest.raises(DataError, match="a table of kind assembled, expected scores"):
        read_table(tmp_path / "labels.parquet", "scores", columns=["image_id"])


def test_a_table_written_row_by_row_is_the_same_and_whole_or_not_at_all(tmp_path):
    rows = [{"image_id": f"{number:05d}", "codes": bytes([number % 256])} for number in range(ROWS_PER_GROUP + 3)]
    with table_writer(tmp_path / "masks.parquet", "masks", {"run": "toy"}) as table:
        for row in rows:
            table.add([row])
    assert pq.ParquetFile(tmp_path / "masks.parquet").num_row_groups == 2
    assert read_table(tmp_path / "masks.parquet", "masks").to_dict("records") == rows
    write_table(tmp_path / "at_once.parquet", "masks", pd.DataFrame(rows), {"run": "toy"})
    schemas = [pq.read_schema(tmp_path / f"{name}.parquet") for name in ("masks", "at_once")]
    assert schemas[0].equals(schemas[1], check_metadata=True)
    with pytest.raises(KeyError), table_writer(tmp_path / "broken.parquet", "masks") as table:
        table.add([{"image_id": "a"}])
    assert not list(tmp_path.glob("broken*"))


def test_rows_that_are_not_wanted_are_not_read(tmp_path):
    with table_writer(tmp_path / "masks.parquet", "masks") as table:
        table.add([{"image_id": name, "codes": b"0"} for name in "abc"])
    found = read_table(tmp_path / "masks.parquet", "masks", filters=[("image_id", ">", "a")])
    assert found["image_id"].tolist() == ["b", "c"]
