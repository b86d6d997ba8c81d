"""What a stage found, as a type that is written as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import read_json, write_json


class Result(BaseModel):
    """A result, which is written as JSON; None is what is unknown or was not measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a result.

        Raises:
            DataError: the file is missing or was written by another version.
        """
        return cls.of(read_json(path), path)

    @classmethod
    def of(cls, values: Any, path: Path) -> Self:
        """Return a result of plain values, which were read for the file at `path`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise DataError(f"{path}: {key}: {first['msg']}; it is of another version, so run its rule again") from None

    def write(self, path: Path) -> None:
        """Write the result as JSON, without fields that were not given."""
        write_json(path, self.model_dump(mode="json", exclude_unset=True))
