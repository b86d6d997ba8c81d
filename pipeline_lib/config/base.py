"""Base class and number types of the config sections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

#: Where a `Path` leads to a folder, the JSON schema says so; from there the checks and the reference know it.
FOLDER = "directory-path"
Folder = Annotated[Path, WithJsonSchema({"type": "string", "format": FOLDER})]


class Section(BaseModel):
    """A section of the config; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RateRule(Section):
    """A rate of an attribute among the images where a condition holds."""

    where: dict[str, bool] = Field(
        {}, description="conditions `attribute: value` that must all hold; empty: every image"
    )
    attribute: str = Field(description="name of the attribute")
    rate: Share = Field(description="share of these images with the attribute")
