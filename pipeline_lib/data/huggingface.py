"""A Hugging Face image dataset, either saved to disk (Arrow) or as the Parquet files of the Hub."""

from __future__ import annotations

import io
from functools import lru_cache, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.config import HuggingFaceData
from pipeline_lib.data.images import PREPROCESSING, load_square
from pipeline_lib.data.sources import BadImageError, Item, Record, Source
from pipeline_lib.runtime.errors import DataError

ROWS = 256  # of an Arrow file that a worker reads at a time; of a Parquet file it reads whole row groups


def open_huggingface(settings: HuggingFaceData) -> Source:
    """List the images of the two splits with their labels; pixels are read later.

    Raises:
        DataError: a split is missing, lacks a column, or contains a label that is neither true nor false.
    """
    return Source(
        train=_items(settings, settings.train),
        held_out=_items(settings, settings.held_out),
        read=partial(_read, settings),
        preprocessing=PREPROCESSING,
        tolerated=settings.bad_images,
    )


def files_of(folder: Path, split: str) -> list[Path]:
    """Return a split's files in order: `<split>/*.arrow` as saved to disk, or `<split>-*.parquet` as on the Hub.

    Raises:
        DataError: there are none.
    """
    found = sorted(folder.glob(f"{split}/*.arrow")) or sorted(folder.rglob(f"{split}-*.parquet"))
    if not found:
        raise DataError(f"{folder}: neither {split}/*.arrow nor {split}-*.parquet; correct the split or the folder")
    return found


def _items(settings: HuggingFaceData, split: str) -> list[Item]:
    items = []
    for path in files_of(settings.folder, split):
        names = _schema(path).names
        missing = [name for name in (settings.image_column, *settings.attributes) if name not in names]
        if missing:
            raise DataError(f"{path}: no column {', '.join(missing)}; it has {', '.join(names)}")
        labels = _labels(path, settings.attributes)
        for (row, values), place in zip(enumerate(labels), _places(path, len(labels)), strict=True):
            wrong = [name for name, value in values.items() if value not in (True, False, 1, 0, -1)]
            if wrong:
                raise DataError(f"{path}: `{wrong[0]}` of row {row} is {values[wrong[0]]!r}, neither true nor false")
            truth = {name: value in (True, 1) for name, value in values.items()}
            items.append(Item(f"{split}-{len(items):08d}", (path, row, place), truth))
    return items


def _read(settings: HuggingFaceData, item: Item) -> Record:
    path, row, (block, within) = item.origin
    stored = _rows(path, settings.image_column, block)[within].as_py()
    if isinstance(stored, bytes):
        stored = {"bytes": stored}
    if not stored or not (stored.get("bytes") or stored.get("path")):
        raise BadImageError(f"row {row} of {path.name} contains no image")
    image = io.BytesIO(stored["bytes"]) if stored.get("bytes") else path.parent / stored["path"]
    return load_square(image, settings.resolution)


def _schema(path: Path) -> pa.Schema:
    if path.suffix == ".arrow":
        return _table(path).schema
    try:
        return pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}); download it again") from None


def _labels(path: Path, attributes: list[str]) -> list[dict[str, object]]:
    table = _table(path) if path.suffix == ".arrow" else pq.read_table(path, columns=attributes)
    return table.select(attributes).to_pylist()


@lru_cache(maxsize=4)
def _table(path: Path) -> pa.Table:
    """Map an Arrow file into memory; it is read only on access."""
    try:
        return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Arrow file ({error}); save the dataset again") from None


@lru_cache(maxsize=2)
def _rows(path: Path, column: str, block: int) -> pa.ChunkedArray:
    """Return a block of images; blocks are cached, because workers read rows in order."""
    if path.suffix == ".arrow":
        return _table(path)[column].slice(block * ROWS, ROWS)
    return pq.ParquetFile(path).read_row_group(block, columns=[column])[column]


def _places(path: Path, count: int) -> list[tuple[int, int]]:
    """Return the block that each row is read with, and its position in the block."""
    if path.suffix == ".arrow":
        return [divmod(row, ROWS) for row in range(count)]
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return [(group, within) for group, size in enumerate(sizes) for within in range(size)]
