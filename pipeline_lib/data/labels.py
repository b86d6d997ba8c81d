"""Labels as people write them: cells of a column, read as true, false or unknown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline_lib.config.columns import SPELLINGS, text_of
from pipeline_lib.runtime.errors import DataError


def read_column(
    cells: Sequence[object], attribute: str, unknown: Sequence[str], place: Callable[[int], str]
) -> list[bool | None]:
    """Read the cells of one column as the values of an attribute.

    Args:
        cells: the column's cells.
        attribute: name of the column, of which `SPELLINGS` are accepted; or `column=value`, true where the cell is
            that value.
        unknown: cells that mean unknown, as blank ones always do.
        place: names the row of a cell in an error.

    Returns:
        The value of each cell; None where it is unknown.

    Raises:
        DataError: a cell is neither true nor false, or 0 and -1 occur together, of which one may mean unknown.
    """
    column, _, value = attribute.partition("=")
    texts = [text_of(cell) for cell in cells]
    known = [bool(text) and text not in unknown for text in texts]
    if value:
        return [text == value if is_known else None for text, is_known in zip(texts, known, strict=True)]
    for row, (text, is_known) in enumerate(zip(texts, known, strict=True)):
        if is_known and text.lower() not in SPELLINGS:
            raise DataError(
                f"{place(row)}: `{column}` is {text!r}, neither true nor false; write 1 or 0, name the cells that mean "
                "unknown in `data.unknown`, or remove the attribute from `data.attributes`"
            )
    if {"0", "-1"} <= {text for text, is_known in zip(texts, known, strict=True) if is_known}:
        raise DataError(
            f"{place(texts.index('-1'))}: `{column}` is -1, and 0 in other rows; "
            "say in `data.unknown` which of the two means unknown"
        )
    return [SPELLINGS[text.lower()] if is_known else None for text, is_known in zip(texts, known, strict=True)]
