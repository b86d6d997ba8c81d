"""Column names of a label table, against which a config is checked."""

from __future__ import annotations

import csv
from pathlib import Path

from pipeline_lib.runtime.errors import DataError


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
