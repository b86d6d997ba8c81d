"""Column names of a table of labels, against which a config is checked."""

from __future__ import annotations

import csv
from pathlib import Path

from pipeline_lib.runtime.errors import DataError


def label_columns(path: Path) -> list[str]:
    """Read the column names of a CSV or Parquet table, and nothing more.

    Raises:
        DataError: the table cannot be read.
    """
    import pyarrow as pa  # here, because a config without a table is checked without it
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".parquet":
            return pq.read_schema(path).names
        with path.open(newline="", encoding="utf-8-sig") as file:
            return next(csv.reader(file), [])
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as a table of labels ({error}); give a .csv or .parquet file") from None
