"""Values of a column as attributes: `race=Black` is the attribute of images that have Black in the column race."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from functools import cached_property

from pipeline_lib.config.base import RateRule
from pipeline_lib.config.columns import SPELLINGS, column_of, read_cells, text_of
from pipeline_lib.config.data import Data
from pipeline_lib.config.messages import check_name
from pipeline_lib.config.run import Config
from pipeline_lib.runtime.errors import DataError

EACH = "each"


def resolve_values(config: Config) -> Config:
    """Return a config that names attributes alone, which readers give and detectors learn.

    A target in the group `race=each` becomes one in the group of each value of that column. Values such as 1 or no of a
    column that has only such become true and false of the column itself. A column that is listed in `data.attributes`,
    `detectors.attributes` or `rebalance.edit.alters` is replaced by those attributes `column=value` that are meant.

    Raises:
        ValueError: the table has no such value, or the reader has no values.
    """
    settings, listed = config.rebalance, dict(_listed_attributes(config))
    conditions = [name for target in settings.targets for name in (target.attribute, *target.where)]
    altered = [name for key, names in settings.edit.alters.items() for name in (key, *names)]
    every = [*conditions, *altered, *settings.edit.regions, *(name for names in listed.values() for name in names)]
    if not any("=" in name for name in every):
        return config
    columns = _Columns(config.data, every)
    targets = [found for number, target in enumerate(settings.targets) for found in _resolve(target, number, columns)]
    named = sorted({name for target in targets for name in (target.attribute, *target.where)})
    values = config.model_dump()
    for section, names in listed.items():
        plain = [columns.condition(f"{section}.attributes", name, True)[0] for name in names]
        values[section]["attributes"] = _of_values(plain, named)

    def resolved(key: str, name: str) -> str:
        return columns.condition(f"rebalance.edit.{key}", name, True)[0]

    known = values["data"]["attributes"] if "data" in listed else named
    values["rebalance"]["targets"] = [target.model_dump() for target in targets]
    edit = values["rebalance"]["edit"]
    edit |= {
        "regions": {resolved("regions", name): region for name, region in edit["regions"].items()},
        "alters": {
            resolved("alters", name): _of_values([resolved(f"alters.{name}", other) for other in others], known)
            for name, others in settings.edit.alters.items()
        },
    }
    return Config.model_validate(values)


def _listed_attributes(config: Config) -> Iterator[tuple[str, list[str]]]:
    """Yield the sections that list attributes, with these."""
    for section in ("data", "detectors"):
        listed = getattr(getattr(config, section), "attributes", None)
        if isinstance(listed, list):
            yield section, listed


def _of_values(attributes: Sequence[str], named: Sequence[str]) -> list[str]:
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
    """The values of those columns of a dataset that are named as in `race=Black`, all read when one is asked for."""

    def __init__(self, data: Data, named: Sequence[str]):
        self._data = data
        self._named = named

    def every(self, key: str, column: str) -> list[str]:
        """Return the values of a column that mean something, sorted; `key` names the target in an error."""
        found = self._values(key, column)
        if found is None:
            raise ValueError(
                f"`{key}.where`: `{column}: {EACH}` needs a label table, which the reader {self._data.reader} has not; "
                f"write a target for each value of `{column}`, such as `where: {{{column}: name of the value}}`"
            )
        return found

    def condition(self, key: str, name: str, holds: bool) -> tuple[str, bool]:
        """Return a condition on an attribute `column=value`, or on the column where its values are true and false."""
        column, equals, value = name.partition("=")
        if not equals or name in self._names:
            return name, holds
        values, meant = self._values(key, column), SPELLINGS.get(value.lower())
        if values is None and self._data.has_values:
            is_binary = column in self._data.attributes  # which says so, since its values are not known here
        else:
            is_binary = all(other.lower() in SPELLINGS for other in values or ())
        if meant is not None and is_binary:
            return column, meant is holds
        if values is None and not self._data.has_values:
            raise ValueError(
                f"`{key}`: attributes of the reader {self._data.reader} are true or false, and `{column}` is asked to "
                f"be {value!r}; write true or false"
            )
        if values is not None and value not in values:
            near = difflib.get_close_matches(value, values, n=1, cutoff=0.0)
            hint = f"did you mean `{near[0]}`?" if near else "it is blank in every row"
            raise ValueError(f"`{key}`: {self._data.labels} has no row whose `{column}` is {value!r}; {hint}")
        return name, holds

    def _values(self, key: str, column: str) -> list[str] | None:
        """Return the values of a column that are known, sorted; None for a reader without a label table."""
        if not self._data.has_table:
            return None
        check_name(key, column, self._names)
        return self._cells[column]

    @cached_property
    def _names(self) -> list[str]:
        """Names that are attributes as they are: those of columns, even with a `=`, or of class folders."""
        return self._data.plain_names

    @cached_property
    def _cells(self) -> dict[str, list[str]]:
        columns = dict.fromkeys(name.partition("=")[0] for name in self._named if "=" in name)
        try:
            cells = read_cells(self._data.labels, [column for column in columns if column in self._names])
        except DataError as error:
            raise ValueError(f"`data.labels`: {error}") from None
        unknown = {"", *self._data.unknown}
        return {column: sorted(set(map(text_of, found)) - unknown) for column, found in cells.items()}
