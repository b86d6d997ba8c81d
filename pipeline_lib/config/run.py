"""A whole config: one section for each part of a run."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from pipeline_lib.config.backends import Parts, PartsBackend, fill_backend
from pipeline_lib.config.base import Section
from pipeline_lib.config.data import AvatarData, Data
from pipeline_lib.config.sections import Detectors, Encoder, Evaluate, Generator, Published, Rebalance, Retrain, Sample


class Config(Section):
    """A run."""

    run: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(
        "avatars", description="name of the run; everything it makes lies under results/<run>/"
    )
    seed: int = Field(0, description="of every random draw of the run")
    data: Annotated[Data, Field(discriminator="reader")] = Field(AvatarData(), description="the images")
    detectors: Detectors = Field(Detectors(), description="the two attribute detectors")
    parts: PartsBackend = Field(Parts(), description="the segmenter that finds the parts of an image")
    published: Published | None = Field(None, description="published weights, for `generator` and `encoder` alike")
    generator: Generator = Field(description="the source generator")
    encoder: Encoder = Field(description="the regressor into its latent space")
    sample: Sample = Field(Sample(), description="what is sampled")
    rebalance: Rebalance = Field(description="the rates wanted, and how they are reached")
    retrain: Retrain = Field(description="the secondary GAN and the control")
    evaluate: Evaluate = Field(Evaluate(), description="the final figures")

    @model_validator(mode="before")
    @classmethod
    def _avatars_and_training_unless_said_otherwise(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        if isinstance(values.get("data"), dict):
            filled["data"] = {"reader": "avatars"} | values["data"]
        if "parts" in values:
            filled["parts"] = fill_backend(values["parts"])
        return filled

    @model_validator(mode="before")
    @classmethod
    def _take_published_weights(cls, values: Any) -> Any:
        """Name the published files in `generator` and `encoder`, where no others are given."""
        try:
            files = Published.model_validate(values["published"]).files()
            return values | {role: {"weights": str(path)} | values[role] for role, path in files.items()}
        except (KeyError, TypeError, ValidationError):  # what is wrong is said where it stands
            return values

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts that can be found in an image, the background first; empty if none can."""
        return self.data.part_names if isinstance(self.parts, Parts) else self.parts.part_names
