"""Label tables: the one place that opens them and reads a cell, for the checks of a config as for the readers."""

from __future__ import annotations

import csv
import gzip
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.runtime.errors import DataError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

#: Spellings of true and false, in lower case; whole numbers may end in `.0`.
SPELLINGS = {"1": True, "0": False, "-1": False, "true": True, "false": False, "yes": True, "no": False}
DELIMITERS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
PARQUET = (".parquet", ".pq")


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
    """Read only the column names of a label table, in their normalised form (NFC, single blanks).

    Raises:
        DataError: the table cannot be read, or has two columns of one name.
    """
    if _is_parquet(path):
        with _parquet(path) as file:
            return checked_names(path, file.schema_arrow.names)
    with _lines(path) as lines:
        return _header(path, lines)


def read_cells(path: Path, wanted: Sequence[str]) -> dict[str, list[object]]:
    """Read some columns of a label table, a cell for each row; those of a text file are text.

    A Parquet file's index is a column like others. Blank lines below the header of a text file are no rows.

    Raises:
        DataError: the table cannot be read, lacks a column, or has a row with more or fewer fields than columns.
    """
    if _is_parquet(path):
        with _parquet(path) as file:
            places = places_of(path, checked_names(path, file.schema_arrow.names), wanted)
            names = {name: file.schema_arrow.names[place] for name, place in places.items()}
            table = file.read(columns=list(names.values()))
            return {name: table[stored].to_pylist() for name, stored in names.items()}
    with _lines(path) as lines:
        header = _header(path, lines)
        places = places_of(path, header, wanted)
        cells: dict[str, list[object]] = {name: [] for name in places}
        for fields in lines:
            if len(fields) < 2 and not "".join(fields).strip():
                continue
            if len(fields) != len(header):
                raise DataError(
                    f"{path}: line {lines.line_num} has {len(fields)} fields, and the first line names {len(header)} "
                    "columns; give every row one field for each column"
                )
            for name, place in places.items():
                cells[name].append(fields[place])
        return cells


def _is_parquet(path: Path) -> bool:
    return path.name.lower().endswith(PARQUET)


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa  # imported here because most configs are checked without it
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.lib.ArrowException) as error:
        raise _unreadable(path, error) from None


@contextmanager
def _lines(path: Path) -> Iterator[csv.reader]:
    """Open a text file as lines of fields; what is wrong with the text shows while they are read."""
    delimiter = next((sign for suffix, sign in DELIMITERS.items() if path.name.lower().endswith(suffix)), None)
    if delimiter is None:
        raise DataError(f"{path}: not a label table by its suffix; use one of {', '.join((*DELIMITERS, *PARQUET))}")
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield csv.reader(file, delimiter=delimiter, strict=True)
    except (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None


def _header(path: Path, lines: Iterator[list[str]]) -> list[str]:
    fields = next(lines, [])
    if not any(field.strip() for field in fields):
        raise DataError(f"{path}: the first line is blank; it must name the columns")
    if any(unicodedata.category(sign) == "Cc" and not sign.isspace() for field in fields for sign in field):
        raise DataError(f"{path}: no text, whatever its suffix; save it as CSV (comma-separated, UTF-8)")
    between, others = lines.dialect.delimiter, {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar"}
    other = next((sign for sign in others if len(fields) == 1 and sign in fields[0]), None)
    if other:
        raise DataError(
            f"{path}: its columns are separated by {others[other]}; separate them by {others[between]}, or save it "
            "again as CSV (comma-separated, UTF-8)"
        )
    return checked_names(path, fields)


def checked_names(path: Path, names: Sequence[str]) -> list[str]:
    """Return the names of a table's columns in their normalised form (NFC, single blanks).

    Raises:
        DataError: two columns have one name.
    """
    columns = [" ".join(unicodedata.normalize("NFC", name).split()) for name in names]
    twice = next((name for place, name in enumerate(columns) if name and name in columns[:place]), None)
    if twice:
        raise DataError(f"{path}: two columns are named `{twice}`; rename or remove one")
    return columns


def places_of(path: Path, columns: list[str], wanted: Sequence[str]) -> dict[str, int]:
    """Return the place of each wanted column.

    Raises:
        DataError: a column is missing.
    """
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise DataError(f"{path}: no column `{missing[0]}`; it has {', '.join(filter(None, columns))}")
    return {name: columns.index(name) for name in wanted}


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: cannot be read as a label table ({' '.join(str(error).split())}); "
        "save it again as CSV (comma-separated, UTF-8) or Parquet"
    )
