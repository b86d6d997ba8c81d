"""Columns of a label table and their cells, against which a config is checked."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from pipeline_lib.runtime.errors import DataError

#: Spellings of true and false, in lower case; whole numbers may end in `.0`.
SPELLINGS = {"1": True, "0": False, "-1": False, "true": True, "false": False, "yes": True, "no": False}


def text_of(cell: object) -> str:
    """Return a cell as text: normalised (NFC), without blanks around it and without the `.0` of a whole number."""
    if cell is None or str(cell == cell) != "True":  # NaN, NaT and NA are not equal to themselves
        return ""
    text = unicodedata.normalize("NFC", str(cell)).strip()
    return text.removesuffix(".0") if text.removesuffix(".0").lstrip("-").isdigit() else text


def column_of(attribute: str, columns: Sequence[str] = ()) -> str:
    """Return the column of an attribute among those of a table.

    `race=Black` is the attribute of rows that have Black in the column race, unless a column itself has this name.
    """
    return attribute if attribute in columns else attribute.partition("=")[0]


def label_columns(path: Path) -> list[str]:
    """Read only the column names of a CSV or Parquet table.

    Raises:
        DataError: the table cannot be read.
    """
    import pyarrow as pa  # imported here because most configs are checked without it
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".parquet":
            return pq.read_schema(path).names
        with path.open(newline="", encoding="utf-8-sig") as file:
            return next(csv.reader(file), [])
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a label table ({error}); use a .csv or .parquet file") from None


def read_cells(path: Path, wanted: Sequence[str]) -> dict[str, list[object]]:
    """Read some columns of a label table, a cell for each row; those of a text file are text.

    Raises:
        DataError: the table cannot be read, or lacks a column.
    """
    import pyarrow.parquet as pq

    if missing := [name for name in wanted if name not in label_columns(path)]:
        raise DataError(f"{path}: no column `{missing[0]}`; it has {', '.join(label_columns(path))}")
    if path.suffix == ".parquet":
        return pq.read_table(path, columns=list(wanted)).to_pydict()
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in wanted}
