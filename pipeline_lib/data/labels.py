"""Label tables as people write them: a row for each image, cells that are true, false or unknown."""

from __future__ import annotations

import posixpath
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline_lib.config.columns import SPELLINGS, column_of, label_columns, read_cells, text_of
from pipeline_lib.data.reader import TableReader
from pipeline_lib.runtime.errors import DataError

AIMS = ("target_attribute", "target_value", "confirmed_by")  # columns of an export, about edited images
LISTED = 20  # values of a column that an error lists


@dataclass(frozen=True)
class Labels:
    """A label table, row by row.

    Attributes:
        names: of the images, each once.
        truth: value of each attribute; None where it is unknown.
        persons: who is shown; None where it is unknown.
        splits: cells of the split column as text, or None without such a column.
        values: how often each cell of a column of which values are attributes occurs.
    """

    names: list[str]
    truth: list[dict[str, bool | None]]
    persons: list[str | None]
    splits: list[str] | None
    values: dict[str, Counter[str]]


def read_labels(
    settings: TableReader, normalised: Callable[[str], str], split_column: str | None = None, confirmed: bool = False
) -> Labels:
    """Read the label table that a config names.

    Args:
        settings: the config section.
        normalised: gives the name of an image its one spelling; raises a ValueError that says what is wrong with it.
        split_column: column of the splits.
        confirmed: whether edited images of an export show what was aimed at, if somebody has confirmed it.

    Raises:
        DataError: the table cannot be read, names an image twice, or has a row without an image or a cell of an
            attribute that is neither true nor false; or no cell is one that means unknown.
    """
    path, columns = settings.labels, label_columns(settings.labels)
    column = {attribute: column_of(attribute, columns) for attribute in settings.attributes}
    others = [name for name in (split_column, settings.person_column) if name is not None]
    if confirmed:
        others += AIMS
    cells = read_cells(path, [settings.id_column, *column.values(), *others])
    labelled = [*column.values(), *filter(None, [settings.person_column])]
    refuse_strangers(settings.unknown, {name: cells[name] for name in labelled}, path)
    names = _read_names(settings, cells[settings.id_column], normalised)

    def place(row: int) -> str:
        return f"{path}: {names[row]}"

    truth = {
        attribute: read_column(cells[name], attribute, settings.unknown, place, name)
        for attribute, name in column.items()
    }
    if confirmed:
        truth = {attribute: _else_confirmed(values, attribute, cells, place) for attribute, values in truth.items()}
    persons: list[str | None] = [None] * len(names)
    if settings.person_column is not None:
        persons = read_persons(cells[settings.person_column], settings.unknown)
    return Labels(
        names,
        [dict(zip(truth, values, strict=True)) for values in zip(*truth.values(), strict=True)],
        persons,
        None if split_column is None else [text_of(cell) for cell in cells[split_column]],
        count_values(column, cells),
    )


def count_values(column: Mapping[str, str], cells: Mapping[str, Sequence[object]]) -> dict[str, Counter[str]]:
    """Return how often each cell occurs in the columns of which values are attributes; `column` is by attribute."""
    return {name: Counter(map(text_of, cells[name])) for attribute, name in column.items() if name != attribute}


def refuse_strangers(unknown: Sequence[str], cells: Mapping[str, Sequence[object]], source: object) -> None:
    """Refuse cells that are to mean unknown but are in no column, since others may be there that mean it.

    Raises:
        DataError: names the source, the cell and the columns.
    """
    found = {text_of(cell) for column in cells.values() for cell in column}
    for cell in unknown:
        if cell and cell not in found:  # blank ones always mean unknown
            near = next((other for other in found if other.lower() == cell.lower()), None)
            hint = f"did you mean {near!r}?" if near else "correct or remove it"
            raise DataError(f"{source}: `data.unknown` names {cell!r}, which no cell of {', '.join(cells)} is; {hint}")


def image_name(text: str) -> str:
    """Return the one spelling of an image's path in its folder: `./a//b.png` is `a/b.png`, in Unicode's form NFC.

    Raises:
        ValueError: the path is absolute, leaves the folder or has a line break.
    """
    name = posixpath.normpath(unicodedata.normalize("NFC", text))
    if posixpath.isabs(name):
        raise ValueError("an absolute path; write it relative to `data.folder`")
    if name.split("/")[0] in ("..", "."):
        raise ValueError("no file of `data.folder`; correct it or move the file there")
    if len(name.splitlines()) > 1:
        raise ValueError("a name with a line break; rename the file")
    return name


def read_persons(cells: Sequence[object], unknown: Sequence[str]) -> list[str | None]:
    """Return who is shown by each cell of a column; None where it is blank or one of those that mean unknown."""
    return [text if text and text not in unknown else None for text in map(text_of, cells)]


def read_column(
    cells: Sequence[object],
    attribute: str,
    unknown: Sequence[str],
    place: Callable[[int], str],
    column: str | None = None,
) -> list[bool | None]:
    """Read the cells of one column as the values of an attribute.

    Args:
        cells: the column's cells.
        attribute: name of the column, of which `SPELLINGS` are accepted; or `column=value`, true where the cell is
            that value.
        unknown: cells that mean unknown, as blank ones always do.
        place: names the row of a cell in an error.
        column: the column's name, where it has a `=` itself.

    Returns:
        The value of each cell; None where it is unknown.

    Raises:
        DataError: a cell is neither true nor false, or -1 and another spelling of false occur together, of which one
            may mean unknown; or no cell is the value of `column=value`.
    """
    column = column or column_of(attribute)
    value = text_of(attribute.removeprefix(column).removeprefix("="))
    texts = [text_of(cell) for cell in cells]
    known = [bool(text) and text not in unknown for text in texts]
    found = {text: row for row, (text, is_known) in enumerate(zip(texts, known, strict=True)) if is_known}
    if attribute != column:
        if cells and value not in found:
            mend = f"use one of {_listed(found)} in `{attribute}`" if found else "all of them are blank or unknown"
            raise DataError(f"{place(0)}: no cell of `{column}` is {value!r}, here or in any other row; {mend}")
        return [text == value if is_known else None for text, is_known in zip(texts, known, strict=True)]
    wrong = next((text for text in found if text.lower() not in SPELLINGS), None)
    if wrong is not None:
        raise DataError(
            f"{place(texts.index(wrong))}: `{column}` is {wrong!r}, neither true nor false; write 1 or 0, name the "
            f"value that is true as in `{column}=value`, or name the cells that mean unknown in `data.unknown`"
        )
    other = next((text for text in found if SPELLINGS[text.lower()] is False and text != "-1"), None)
    if "-1" in found and other is not None:
        raise DataError(
            f"{place(texts.index('-1'))}: `{column}` is -1, and {other} in other rows; "
            "say in `data.unknown` which of the two means unknown"
        )
    return [SPELLINGS[text.lower()] if is_known else None for text, is_known in zip(texts, known, strict=True)]


def _else_confirmed(
    values: Sequence[bool | None], attribute: str, cells: Mapping[str, Sequence[object]], place: Callable[[int], str]
) -> list[bool | None]:
    """Return values of an attribute, and where one is unknown the value that an edit aimed at, if it is confirmed."""
    aims = read_column(cells["target_value"], "target_value", (), place)
    return [
        aim if value is None and text_of(confirmed) and text_of(edited) == attribute else value
        for value, aim, edited, confirmed in zip(
            values, aims, cells["target_attribute"], cells["confirmed_by"], strict=True
        )
    ]


def _listed(values: Sequence[str]) -> str:
    listed = ", ".join(repr(value) for value in sorted(values)[:LISTED])
    return listed if len(values) <= LISTED else f"{listed} and {len(values) - LISTED} more"


def _read_names(settings: TableReader, cells: Sequence[object], normalised: Callable[[str], str]) -> list[str]:
    names: dict[str, int] = {}
    for row, cell in enumerate(cells):
        text = text_of(cell)
        if not text:
            raise DataError(f"{settings.labels}: row {row + 1} has no `{settings.id_column}`; add it or remove the row")
        try:
            name = normalised(text)
        except ValueError as fault:
            raise DataError(
                f"{settings.labels}: `{settings.id_column}` of row {row + 1} is {text!r}, {fault}"
            ) from None
        if name in names:
            raise DataError(
                f"{settings.labels}: `{name}` appears in two rows, {names[name] + 1} and {row + 1}; remove one"
            )
        names[name] = row
    return list(names)
