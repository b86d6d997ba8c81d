"""A folder of images with a label table and optional part masks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline_lib.config import FolderData
from pipeline_lib.data.images import PREPROCESSING, load_codes, open_photograph
from pipeline_lib.data.sources import Item, Record, Source, divide, hold_out
from pipeline_lib.runtime.errors import DataError

TRUTH = {"1": True, "0": False, "-1": False, "1.0": True, "0.0": False, "-1.0": False, "true": True, "false": False}
SPLITS = ("train", "held_out")


def open_folder(settings: FolderData) -> Source:
    """Read the label table and split its images.

    Raises:
        DataError: the table cannot be read, names an image twice, or lacks a value.
    """
    table = read_labels(settings.labels, settings.id_column)
    truth = read_truth(table, settings.labels, settings.id_column, settings.attributes)
    held = _held_out(table, settings)
    names = table[settings.id_column].astype(str)
    items = [Item(name, name, row) for name, row in zip(names, truth, strict=True)]
    train, held_out = divide(items, held)
    return Source(
        train=train,
        held_out=held_out,
        read=partial(_read, settings),
        preprocessing=PREPROCESSING,
        tolerated=settings.bad_images,
    )


def read_labels(path: Path, id_column: str) -> pd.DataFrame:
    """Read a label table; every cell of a CSV file is read as text.

    Raises:
        DataError: the table cannot be read, names an image twice, or has a row without one.
    """
    try:
        read = pd.read_parquet if path.suffix == ".parquet" else partial(pd.read_csv, dtype=str, encoding="utf-8-sig")
        table = read(path)
    except (OSError, pa.ArrowInvalid, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a label table ({error}); use a .csv or .parquet file") from None
    names = table[id_column]
    if names.isna().any():
        row = int(names.isna().to_numpy().argmax()) + 1
        raise DataError(f"{path}: row {row} has no `{id_column}`; add it or remove the row")
    if names.duplicated().any():
        raise DataError(f"{path}: `{names[names.duplicated()].iloc[0]}` appears in two rows; remove one")
    return table


def read_truth(table: pd.DataFrame, path: Path, id_column: str, attributes: list[str]) -> list[dict[str, bool]]:
    """Return the attributes of each row as booleans; `TRUTH` lists the accepted spellings.

    Raises:
        DataError: a value is not one of them.
    """
    columns = {}
    for name in attributes:
        values = table[name].map(lambda value: TRUTH.get(str(value).strip().lower()))
        if values.isna().any():
            row = int(values.isna().to_numpy().argmax())
            raise DataError(
                f"{path}: `{name}` of {table[id_column].iloc[row]} is {table[name].iloc[row]!r}, "
                "neither true nor false; write 1 or 0, or remove the attribute from `data.attributes`"
            )
        columns[name] = values.astype(bool)
    return pd.DataFrame(columns).to_dict("records")


def _read(settings: FolderData, item: Item) -> Record:
    photograph = open_photograph(settings.folder / item.origin)
    codes = None
    if settings.masks is not None:
        mask = (settings.masks / item.image_id).with_suffix(".png")
        codes = load_codes(mask, settings.resolution, len(settings.parts), photograph)
    return photograph.square(settings.resolution, codes)


def _held_out(table: pd.DataFrame, settings: FolderData) -> np.ndarray:
    if settings.split_column is None:
        return hold_out(len(table), settings.held_out, settings.seed)
    split = table[settings.split_column].astype(str)
    other = ~split.isin(SPLITS)
    if other.any():
        raise DataError(
            f"{settings.labels}: `{settings.split_column}` is {split[other].iloc[0]!r} for "
            f"{table[settings.id_column][other].iloc[0]}; it must be train or held_out"
        )
    return (split == "held_out").to_numpy()
