"""What a reader is: a kind of dataset, with its keys in the config and how it is opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from pipeline_lib.config.base import Folder, Section, Share
from pipeline_lib.config.columns import column_of, label_columns, text_of
from pipeline_lib.config.messages import check_name
from pipeline_lib.data.sources import Source
from pipeline_lib.runtime.errors import DataError

Resolution = Annotated[
    Literal[32, 64, 128, 256, 512, 1024],
    Field(description="side in pixels to which the centre crop of each image is resized"),
]
BadImages = Annotated[Share, Field(description="largest tolerated share of unusable images; more is an error")]


def _as_text(cell: Any) -> Any:
    """Return a cell as it is compared with those of a table; `yes` without quotes is no text but true in YAML."""
    if isinstance(cell, bool):
        raise ValueError("put it in quotes, as in 'no', since without them YAML takes yes and no for true and false")
    return text_of(cell) if isinstance(cell, str | int | float) else cell


#: A cell of a label table, as text; a number needs no quotes.
Cell = Annotated[str, BeforeValidator(_as_text), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}]})]
Labelled = Annotated[
    list[str],
    Field(
        min_length=1,
        description="columns that are true or false (1 or 0, yes or no), or `column=value`, true where a cell has it",
    ),
]
TABLE = "label table, .csv or .tsv (or these with .gz), .parquet or .pq"
UNKNOWN = "cells that mean unknown, such as -1; blank ones always do"
PersonColumn = Annotated[
    str | None, Field(description="column that says who is shown; nobody is then both in training and held out")
]


class Reader(Section):
    """A kind of dataset: its keys, what they name, and how it is opened. Its key `reader` has its name."""

    #: Whether attributes may be values of a column, as in `race=Black`.
    has_values: ClassVar[bool] = False
    #: Whether these are columns of a label table.
    has_table: ClassVar[bool] = False

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the part codes in the masks, the background first; empty without masks."""
        return ()

    @property
    def plain_names(self) -> list[str]:
        """Names that are attributes as they are, even with a `=`."""
        return []

    def known_attributes(self) -> Sequence[str]:
        """Check what the keys name, and return the attributes; raises a ValueError that names the key."""
        return self.attributes

    def open(self) -> Source:
        """List the images of both splits with their labels; pixels are read later.

        Raises:
            DataError: files or labels cannot be read, or do not fit each other.
        """
        raise NotImplementedError


class TableReader(Reader):
    """A dataset with a label table, of whose columns and their values attributes are made."""

    has_values: ClassVar[bool] = True
    has_table: ClassVar[bool] = True

    folder: Folder
    labels: Path
    id_column: str
    attributes: Labelled
    unknown: list[Cell] = Field([], description=UNKNOWN)
    person_column: PersonColumn = None

    @property
    def plain_names(self) -> list[str]:
        """Names of the columns."""
        try:
            return label_columns(self.labels)
        except DataError as error:
            raise ValueError(f"`data.labels`: {error}") from None

    def known_attributes(self) -> Sequence[str]:
        self.check_columns("id_column", "person_column")
        return self.attributes

    def check_columns(self, *keys: str) -> None:
        """Check that the table has the columns of the attributes, and those that these keys name."""
        columns = self.plain_names
        for name in self.attributes:
            if name in columns and column_of(name) in columns and column_of(name) != name:
                raise ValueError(
                    f"`data.attributes`: `{name}` means the value `{name.partition('=')[2]}` of a column "
                    f"`{column_of(name)}`, but is itself a column of {self.labels}; rename it"
                )
            check_name("data.attributes", column_of(name, columns), columns)
        for key in keys:
            if getattr(self, key) is not None:
                check_name(f"data.{key}", getattr(self, key), columns)
