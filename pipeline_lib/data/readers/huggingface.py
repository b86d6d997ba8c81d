"""A Hugging Face image dataset, either saved to disk (Arrow) or as the Parquet files of the Hub."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from pipeline_lib.config.base import Folder
from pipeline_lib.config.columns import SPELLINGS, checked_names, column_of, places_of, text_of
from pipeline_lib.data.huggingface_layout import Layout, class_names, find_files, left_out
from pipeline_lib.data.images import PREPROCESSING, load_square
from pipeline_lib.data.labels import count_values, read_column, read_persons, refuse_strangers
from pipeline_lib.data.reader import UNKNOWN, BadImages, Cell, Labelled, PersonColumn, Reader, Resolution
from pipeline_lib.data.sources import BadImageError, Item, Record, Source
from pipeline_lib.runtime.errors import DataError

ROWS = 256  # of an Arrow file that a worker reads at a time; of a Parquet file it reads whole row groups


class HuggingFaceData(Reader):
    """A Hugging Face image dataset, saved to disk or as Parquet files, whose layout the package `datasets` reads."""

    has_values: ClassVar = True

    reader: Literal["huggingface"] = Field(description="reader of the dataset")
    folder: Folder = Field(description="folder of a dataset saved to disk, or of a snapshot of the Hub")
    configuration: Annotated[str, Field(coerce_numbers_to_str=True)] | None = Field(
        None, description="configuration (subset) to read; null: there is only one"
    )
    image_column: str = Field("image", description="column with the images")
    attributes: Labelled
    unknown: list[Cell] = Field([], description=UNKNOWN)
    person_column: PersonColumn = None
    train: str = Field("train", description="training split")
    held_out: str = Field("test", description="held-out split")
    resolution: Resolution = 256
    bad_images: BadImages = 0.01

    def open(self) -> Source:
        """List the images of the two splits with their labels; pixels are read later.

        Raises:
            DataError: a split or a shard is missing or not told apart from another, a column is missing, a label is
                neither true nor false, or a value of an attribute `column=value` does not occur.
        """
        splits = (self.train, self.held_out)
        layout = find_files(self.folder, self.configuration, splits)
        columns: dict[str, list[object]] = {column_of(name): [] for name in self.attributes}
        if self.person_column is not None:
            columns[self.person_column] = []
        rows: list[_Row] = []
        for split in splits:
            for path in layout.files[split]:
                for column, cells in _cells(path, list(columns), self, layout).items():
                    columns[column] += cells
                rows += [_Row(split, path, number, place) for number, place in enumerate(_places(path))]
        named = [cell for cell in self.unknown if cell != "-1"]  # which stands for no class, and was read as none
        refuse_strangers(named, columns, self.folder)

        def place(row: int) -> str:
            return f"{rows[row].path}: row {rows[row].number}"

        truth = {name: read_column(columns[column_of(name)], name, self.unknown, place) for name in self.attributes}
        people = read_persons(columns.get(self.person_column, [None] * len(rows)), self.unknown)
        items: dict[str, list[Item]] = {split: [] for split in splits}
        for number, (row, person) in enumerate(zip(rows, people, strict=True)):
            of_split = items[row.split]
            attributes = {name: values[number] for name, values in truth.items()}
            of_split.append(
                Item(f"{row.split}-{len(of_split):08d}", (row.path, row.number, row.place), attributes, person)
            )
        return Source(
            train=items[self.train],
            held_out=items[self.held_out],
            read=partial(_read, self),
            preprocessing=PREPROCESSING,
            tolerated=self.bad_images,
            left_out=left_out(self.folder, layout.files),
            values=count_values({name: column_of(name) for name in self.attributes}, columns),
        )


class _Row(NamedTuple):
    split: str
    path: Path
    number: int  # of the row in the file
    place: tuple[int, int]  # the block that it is read with, and its position in the block


def _cells(path: Path, columns: list[str], settings: HuggingFaceData, layout: Layout) -> dict[str, list[object]]:
    """Read columns of a file; numbers of classes become their names, and -1, which stands for none, becomes None."""
    schema = _schema(path)
    stored = _stored(path, schema, [settings.image_column, *columns])
    kind = schema.field(stored[settings.image_column]).type
    is_image = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if not is_image and not (pa.types.is_struct(kind) and {"bytes", "path"} & {field.name for field in kind}):
        raise DataError(f"{path}: `{settings.image_column}` contains no images but {kind}; correct `data.image_column`")
    described = class_names(schema, layout.features)
    names = {column: described[stored[column]] for column in columns if stored[column] in described}
    for column in set(settings.attributes) & set(names):
        if not all(name.lower() in SPELLINGS or name in settings.unknown for name in map(text_of, names[column])):
            raise DataError(
                f"{path}: `{column}` has the classes {', '.join(names[column])}, neither true nor false; "
                f"write one as {column}={names[column][-1]} in `data.attributes`"
            )
    table = (
        _table(path) if path.suffix.lower() == ".arrow" else _read_parquet(path, [stored[column] for column in columns])
    )
    cells = {column: table[stored[column]].to_pylist() for column in columns}
    for column in names:
        cells[column] = [
            _name_of(cell, names[column], f"{path}: `{column}` of row {row}") for row, cell in enumerate(cells[column])
        ]
    return cells


def _name_of(cell: object, names: list[str], place: str) -> str | None:
    if cell is None or cell == -1:
        return None
    if not isinstance(cell, int) or not 0 <= cell < len(names):
        raise DataError(f"{place} is {cell!r}, but its classes are {', '.join(names)}, from 0 on; correct one of them")
    return names[cell]


def _read(settings: HuggingFaceData, item: Item) -> Record:
    path, row, (block, within) = item.origin
    stored = _rows(path, settings.image_column, block)[within].as_py()
    if isinstance(stored, bytes):
        stored = {"bytes": stored}
    if not stored or not (stored.get("bytes") or stored.get("path")):
        raise BadImageError(f"row {row} of {path.name} contains no image")
    image = io.BytesIO(stored["bytes"]) if stored.get("bytes") else path.parent / stored["path"]
    return load_square(image, settings.resolution)


def _stored(path: Path, schema: pa.Schema, columns: list[str]) -> dict[str, str]:
    """Return the name of each column as the file spells it."""
    places = places_of(path, checked_names(path, schema.names), columns)
    return {column: schema.names[place] for column, place in places.items()}


def _schema(path: Path) -> pa.Schema:
    if path.suffix.lower() == ".arrow":
        return _table(path).schema
    with _readable(path):
        return pq.read_schema(path)


def _read_parquet(path: Path, columns: list[str]) -> pa.Table:
    with _readable(path):
        return pq.read_table(path, columns=columns, partitioning=None)


@lru_cache(maxsize=4)
def _table(path: Path) -> pa.Table:
    """Map an Arrow file into memory; it is read only on access."""
    with _readable(path):
        return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


@lru_cache(maxsize=2)
def _rows(path: Path, column: str, block: int) -> pa.ChunkedArray:
    """Return a block of images; blocks are cached, because workers read rows in order."""
    if path.suffix.lower() == ".arrow":
        table = _table(path)
        return table[_stored(path, table.schema, [column])[column]].slice(block * ROWS, ROWS)
    with _readable(path):
        file = pq.ParquetFile(path)
        stored = _stored(path, file.schema_arrow, [column])[column]
        return file.read_row_group(block, columns=[stored])[stored]


def _places(path: Path) -> list[tuple[int, int]]:
    """Return the block that each row is read with, and its position in the block."""
    if path.suffix.lower() == ".arrow":
        return [divmod(row, ROWS) for row in range(_table(path).num_rows)]
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return [(group, within) for group, size in enumerate(sizes) for within in range(size)]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Name a file that cannot be read."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable dataset file ({error}); download or save it again") from None
