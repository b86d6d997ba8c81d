"""The typed config of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from pipeline_lib.config.backends import (
    BackboneNetwork,
    DetectorNetwork,
    GivenNetwork,
    GivenParts,
    OnnxNetwork,
    OnnxParts,
    Parts,
    PartsBackend,
    SaliencyParts,
    SupervisedTraining,
    TrainedHere,
    TransformersNetwork,
    TransformersParts,
    fill_backend,
)
from pipeline_lib.config.base import RateRule, Section
from pipeline_lib.config.checks import check_attributes, check_networks, check_targets
from pipeline_lib.config.data import (
    AvatarData,
    CelebAData,
    CelebAHQData,
    ClassFolderData,
    Data,
    FFHQData,
    FolderData,
    HuggingFaceData,
)
from pipeline_lib.config.messages import describe
from pipeline_lib.config.sections import (
    AttributeLoss,
    Augmentation,
    BoxRegion,
    Detectors,
    Encoder,
    EncoderTraining,
    Evaluate,
    GanTraining,
    Generator,
    GrowthPhase,
    IdentityLoss,
    LocalDiscriminator,
    LocalLoss,
    MaskSampling,
    PartRegion,
    Precision,
    PrecisionChoice,
    Published,
    Rebalance,
    Retrain,
    Sample,
    Square,
)
from pipeline_lib.runtime.errors import ConfigError

__all__ = [
    "AttributeLoss",
    "Augmentation",
    "AvatarData",
    "BackboneNetwork",
    "BoxRegion",
    "CelebAData",
    "CelebAHQData",
    "ClassFolderData",
    "Config",
    "Data",
    "DetectorNetwork",
    "Detectors",
    "Encoder",
    "EncoderTraining",
    "Evaluate",
    "FFHQData",
    "FolderData",
    "GanTraining",
    "Generator",
    "GivenNetwork",
    "GivenParts",
    "GrowthPhase",
    "HuggingFaceData",
    "IdentityLoss",
    "LocalDiscriminator",
    "LocalLoss",
    "MaskSampling",
    "OnnxNetwork",
    "OnnxParts",
    "PartRegion",
    "Parts",
    "PartsBackend",
    "Precision",
    "PrecisionChoice",
    "Published",
    "RateRule",
    "Rebalance",
    "Retrain",
    "SaliencyParts",
    "Sample",
    "Square",
    "SupervisedTraining",
    "TrainedHere",
    "TransformersNetwork",
    "TransformersParts",
    "load_config",
    "parse_config",
]


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

    @model_validator(mode="after")
    def _sections_agree(self) -> Config:
        check_attributes(self)
        check_targets(self.rebalance.targets)
        check_networks(self)
        return self


def load_config(path: str | Path) -> Config:
    """Read and check a config file.

    Raises:
        ConfigError: naming the key, the value found and how to mend it.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no keys; start from a copy of config/config.yaml")
    return parse_config(values, source=str(path))


def parse_config(values: dict[str, Any], source: str = "config") -> Config:
    """Check config values; `source` names their origin in errors.

    Raises:
        ConfigError: naming the key, the value found and how to mend it.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        schema = Config.model_json_schema()
        problems = "; ".join(describe(problem, schema) for problem in error.errors(include_url=False)[:5])
        raise ConfigError(f"{source}: {problems}") from None
