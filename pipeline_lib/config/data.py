"""The config section `data`: the readers of datasets, each in a module of its own."""

from __future__ import annotations

from typing import Annotated, Union

from pydantic import Field

from pipeline_lib.config.kinds import find_kinds

READERS = find_kinds("pipeline_lib.data.readers", key="reader")
Data = Annotated[Union[READERS], Field(discriminator="reader")]  # noqa: UP007  of a tuple
