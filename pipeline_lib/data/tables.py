"""Schemas of all Parquet tables of a run, with functions that write and read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import atomic_path

SCHEMA_VERSION = "1"
ROWS_PER_GROUP = 4096  # rows that a `table_writer` holds in memory at a time

#: Fixed columns of each kind of table. Kinds marked open have further columns, one per attribute.
SCHEMAS: dict[str, pa.Schema] = {
    # One row per image with its ground truth and the person shown, null where unknown; a copy of a picture shows the
    # person of the first. Open, with a bool per attribute, null where unknown.
    "labels": pa.schema([("image_id", pa.string()), ("split", pa.string()), ("person", pa.string())]),
    # One row per image of the source that could not be used, with the reason.
    "quarantine": pa.schema([("image_id", pa.string()), ("split", pa.string()), ("reason", pa.string())]),
    # One row per image or file of the source that was not taken as it is. The kind is `left out` (no image of the
    # dataset), `converted` (another colour mode, say) or `duplicate` (pixels of an earlier image).
    "notes": pa.schema([("name", pa.string()), ("split", pa.string()), ("kind", pa.string()), ("reason", pa.string())]),
    # One row per image of an assembled set. Open, with a bool per attribute: of edited images null where their region
    # can show it, and else as in the original.
    "assembled": pa.schema([("image_id", pa.string()), ("edited", pa.bool_())]),
    # One row per image with a detector's calibrated probabilities. Open, with a float per attribute.
    "scores": pa.schema([("image_id", pa.string())]),
    # One row per part found in an image; the mask has one bit per pixel, row by row.
    "parts": pa.schema(
        [
            ("image_id", pa.string()),
            ("part", pa.string()),
            ("pixels", pa.int32()),
            ("top", pa.int16()),
            ("bottom", pa.int16()),
            ("left", pa.int16()),
            ("right", pa.int16()),
            ("mask", pa.binary()),
        ]
    ),
    # One row per image with the part codes of its pixels, one byte each, row by row.
    "masks": pa.schema([("image_id", pa.string()), ("codes", pa.binary())]),
    # One row per image with its latent, float32, flattened.
    "latents": pa.schema([("image_id", pa.string()), ("latent", pa.list_(pa.float32()))]),
    # One row per planned edit, with the value to reach and the index of its target; `spare` is above 0 for an edit that
    # is made only if another one of the target fails.
    "plan": pa.schema(
        [
            ("image_id", pa.string()),
            ("position", pa.int64()),
            ("target", pa.int16()),
            ("attribute", pa.string()),
            ("wanted", pa.bool_()),
            ("spare", pa.int32()),
        ]
    ),
    # One row per candidate of each planned edit; `masked_l1` is that of its finished image to its collage.
    "candidates": pa.schema(
        [
            ("image_id", pa.string()),
            ("candidate", pa.int16()),
            ("donor_id", pa.string()),
            ("logit", pa.float32()),
            ("in_group", pa.bool_()),
            ("seam", pa.float32()),
            ("success", pa.bool_()),
            ("chosen", pa.bool_()),
            ("masked_l1", pa.float32()),
        ]
    ),
    # One row per edited image whose truth is known: the drawing of its closest clean rendering, what that shows, and
    # PSNRs in dB (infinite for identical pixels) to that rendering, the ideal edit, as a whole and inside the region.
    "counterfactuals": pa.schema(
        [
            ("image_id", pa.string()),
            ("donor_id", pa.string()),
            ("attribute", pa.string()),
            ("wanted", pa.bool_()),
            ("closest", pa.string()),
            ("true_value", pa.bool_()),
            ("identical_outside", pa.bool_()),
            ("psnr_ideal", pa.float64()),
            ("psnr_inside", pa.float64()),
        ]
    ),
    # One row per figure of a study, the mean of n with its interval, and the paper's figure for the same domain.
    "studies": pa.schema(
        [
            ("study", pa.string()),
            ("row", pa.string()),
            ("metric", pa.string()),
            ("value", pa.float64()),
            ("ci_low", pa.float64()),
            ("ci_high", pa.float64()),
            ("n", pa.int64()),
            ("paper", pa.float64()),
        ]
    ),
}
MAY_LACK = {"labels": {"person"}, "plan": {"spare"}}
OPEN = {"labels": pa.bool_(), "assembled": pa.bool_(), "scores": pa.float32()}


def write_table(path: str | Path, kind: str, rows: pd.DataFrame, metadata: dict[str, str] | None = None) -> None:
    """Write `rows` as a table of `kind`, atomically.

    Args:
        path: the file to write.
        kind: a key of `SCHEMAS`.
        rows: with the columns of that kind, and attribute columns if the kind is open.
        metadata: run, digest of the config section and digests of the models that made the table.
    """
    schema = _schema(kind, rows.columns, metadata)
    table = pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False)
    table = table.replace_schema_metadata(schema.metadata)
    with atomic_path(path) as beside:
        pq.write_table(table, beside, compression="zstd", write_page_checksum=True)


def _schema(kind: str, columns: Iterable[str], metadata: dict[str, str] | None) -> pa.Schema:
    schema = SCHEMAS[kind]
    for name in MAY_LACK.get(kind, set()) - set(columns):
        schema = schema.remove(schema.get_field_index(name))
    extra = [name for name in columns if name not in schema.names]
    if extra and kind not in OPEN:
        raise ValueError(f"a {kind} table has no columns {extra}")
    for name in extra:
        schema = schema.append(pa.field(name, OPEN[kind]))
    return schema.with_metadata({"kind": kind, "schema_version": SCHEMA_VERSION, **(metadata or {})})


class TableWriter:
    """Collects rows of a table and writes them in groups; made by `table_writer`."""

    def __init__(self, writer: pq.ParquetWriter):
        self._writer = writer
        self._columns: dict[str, list[object]] = {name: [] for name in writer.schema.names}

    def add(self, rows: pd.DataFrame | Sequence[Mapping[str, object]]) -> None:
        """Add rows, each with a value for every column."""
        as_frame = isinstance(rows, pd.DataFrame)
        for name, column in self._columns.items():
            column.extend(rows[name].tolist() if as_frame else [row[name] for row in rows])
        if len(column) >= ROWS_PER_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write the rows collected as one row group."""
        self._writer.write_table(pa.Table.from_pydict(self._columns, schema=self._writer.schema))
        for column in self._columns.values():
            column.clear()


@contextmanager
def table_writer(
    path: str | Path, kind: str, metadata: dict[str, str] | None = None, columns: Sequence[str] = ()
) -> Iterator[TableWriter]:
    """Write a table of `kind` batch by batch and atomically; written rows take no memory.

    Args:
        path: the file to write.
        kind: a key of `SCHEMAS`.
        metadata: run, digest of the config section and digests of the models that made the table.
        columns: all columns of the rows, required for a kind that is open or has optional columns.
    """
    schema = _schema(kind, columns or SCHEMAS[kind].names, metadata)
    with (
        atomic_path(path) as beside,
        pq.ParquetWriter(beside, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        table = TableWriter(writer)
        yield table
        table.flush()


def read_table(
    path: str | Path, kind: str, columns: Sequence[str] | None = None, filters: Sequence[tuple] | None = None
) -> pd.DataFrame:
    """Read a table of `kind`, or some of its columns, or the rows that match all `filters` (column, operator, value).

    Raises:
        DataError: the file is missing, damaged or of another kind.
    """
    return read_arrow(path, kind, columns, filters).to_pandas()


def read_arrow(
    path: str | Path, kind: str, columns: Sequence[str] | None = None, filters: Sequence[tuple] | None = None
) -> pa.Table:
    """Read a table like `read_table`, in the form of the file, which takes little memory for many rows."""
    try:
        table = pq.read_table(
            path,
            columns=list(columns) if columns else None,
            filters=list(filters) if filters else None,
            page_checksum_verification=True,
        )
    except FileNotFoundError:
        raise DataError(f"{path}: no such table; run the rule that makes it") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable table ({error}); delete it and run again") from None
    found = (table.schema.metadata or {}).get(b"kind", b"unknown").decode()
    if found != kind:
        raise DataError(f"{path}: a table of kind {found}, expected {kind}; correct the path")
    return table


def read_tables(paths: Sequence[str | Path], kind: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read several tables of `kind` as one."""
    return pd.concat([read_table(path, kind, columns) for path in paths], ignore_index=True)


def attribute_columns(rows: pd.DataFrame, kind: str) -> list[str]:
    """Return the attribute columns of an open table."""
    return [name for name in rows.columns if name not in SCHEMAS[kind].names]


def is_for_calibration(image_ids: Sequence[str]) -> np.ndarray:
    """Return on which held-out images a detector is calibrated, bool (n,); its error is measured on the others.

    Every other image in the order of their names is, so that both halves are the same in any order of the images.
    """
    return np.argsort(np.argsort(np.asarray(image_ids, str))) % 2 == 0
