"""Values of a column as attributes: `race=Black` is the attribute of images that have Black in the column race."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from pipeline_lib.config.base import RateRule
from pipeline_lib.config.columns import SPELLINGS, column_of, read_cells, text_of
from pipeline_lib.config.data import Data, FFHQData, FolderData, HuggingFaceData
from pipeline_lib.config.run import Config
from pipeline_lib.runtime.errors import DataError

EACH = "each"


def resolve_values(config: Config) -> Config:
    """Return a config whose targets name attributes alone, which readers give and detectors learn.

    A target in the group `race=each` becomes one in the group of each value of that column. Values such as 1 or no of a
    column that has only such become true and false of the column itself. A column that is listed in `data.attributes`
    or `detectors.attributes` is replaced by those attributes `column=value` that the targets name.

    Raises:
        ValueError: the table has no such value, or the reader has no values.
    """
    targets = config.rebalance.targets
    if not any("=" in name for target in targets for name in (target.attribute, *target.where)):
        return config
    columns = _Columns(config.data)
    resolved = [found for number, target in enumerate(targets) for found in _resolve(target, number, columns)]
    named = sorted({name for target in resolved for name in (target.attribute, *target.where)})
    values = config.model_dump()
    values["rebalance"]["targets"] = [target.model_dump() for target in resolved]
    for section in ("data", "detectors"):
        listed = values[section].get("attributes")
        if isinstance(listed, list):
            values[section]["attributes"] = _listed(listed, named)
    return Config.model_validate(values)


def _listed(attributes: Sequence[str], named: Sequence[str]) -> list[str]:
    """Return attributes with those of its values in the place of a column; each is there once."""
    found = []
    for listed in attributes:
        of_values = [name for name in named if name != listed and column_of(name) == listed]
        found += [listed] if listed in named or not of_values else []
        found += of_values
    return list(dict.fromkeys(found))


def _resolve(target: RateRule, number: int, columns: _Columns) -> Iterator[RateRule]:
    """Yield the targets that one stands for."""
    key = f"rebalance.targets.{number}"
    attribute, has = columns.condition(key, target.attribute, True)
    if not has:
        raise ValueError(f"`{key}.value` means false; name `{attribute}` without it, and 1 minus that rate")
    wheres: list[dict[str, bool]] = [{}]
    for name, holds in target.where.items():
        column, _, value = name.partition("=")
        names = [f"{column}={each}" for each in columns.every(key, column)] if value == EACH else [name]
        conditions = dict.fromkeys(columns.condition(key, each, holds) for each in names)  # yes and 1 are one
        wheres = [where | dict([condition]) for where in wheres for condition in conditions]
    for where in wheres:
        yield target.model_copy(update={"attribute": attribute, "where": where})


class _Columns:
    """The values of the columns of a dataset, read where they are asked for."""

    def __init__(self, data: Data):
        self._data = data
        self._known: dict[str, list[str]] = {}

    def every(self, key: str, column: str) -> list[str]:
        """Return the values of a column that mean something, sorted; `key` names the target in an error."""
        found = self._values(column)
        if found is None:
            raise ValueError(
                f"`{key}.where`: `{column}: {EACH}` needs a label table, which the reader {self._data.reader} has not; "
                "write a target for each value"
            )
        return found

    def condition(self, key: str, name: str, holds: bool) -> tuple[str, bool]:
        """Return a condition on an attribute `column=value`, or on the column where its values are true and false."""
        column, equals, value = name.partition("=")
        if not equals:
            return name, holds
        values, meant = self._values(column), SPELLINGS.get(value.lower())
        if meant is not None and all(other.lower() in SPELLINGS for other in values or ()):
            return column, meant is holds
        if values is None and not isinstance(self._data, HuggingFaceData):
            raise ValueError(
                f"`{key}`: attributes of the reader {self._data.reader} are true or false, and `{column}` is asked to "
                f"be {value!r}; write true or false"
            )
        if values is not None and value not in values:
            near = difflib.get_close_matches(value, values, n=1, cutoff=0.0)
            hint = f"did you mean `{near[0]}`?" if near else "it is blank in every row"
            raise ValueError(f"`{key}`: {self._data.labels} has no row whose `{column}` is {value!r}; {hint}")
        return name, holds

    def _values(self, column: str) -> list[str] | None:
        """Return the values of a column that are known, sorted; None for a reader without a label table."""
        if not isinstance(self._data, FolderData | FFHQData):
            return None
        if column not in self._known:
            try:
                cells = read_cells(self._data.labels, [column])[column]
            except DataError as error:
                raise ValueError(f"`data.labels`: {error}") from None
            self._known[column] = sorted({text_of(cell) for cell in cells} - {"", *self._data.unknown})
        return self._known[column]
