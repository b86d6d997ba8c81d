"""The typed config of a run."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline_lib.config.backends import (
    BackboneNetwork,
    DetectorNetwork,
    GivenNetwork,
    GivenParts,
    LibraryNetwork,
    OnnxNetwork,
    OnnxParts,
    Parts,
    PartsBackend,
    SupervisedTraining,
    TrainedHere,
    TransformersNetwork,
    TransformersParts,
)
from pipeline_lib.config.base import RateRule
from pipeline_lib.config.checks import (
    check_attributes,
    check_names,
    check_networks,
    check_paths,
    check_sections,
    check_targets,
    named_files,
)
from pipeline_lib.config.data import (
    Data,
)
from pipeline_lib.config.messages import describe
from pipeline_lib.config.presets import below
from pipeline_lib.config.rebalance import (
    BoxRegion,
    Edit,
    Editor,
    PartRegion,
    Rebalance,
)
from pipeline_lib.config.run import Config
from pipeline_lib.config.sections import (
    AttributeLoss,
    Certify,
    Detectors,
    Encoder,
    EncoderTraining,
    Evaluate,
    GanTraining,
    Generator,
    GrowthPhase,
    LocalDiscriminator,
    LocalLoss,
    MaskSampling,
    Precision,
    Published,
    Retrain,
    Sample,
    Square,
    Utility,
)
from pipeline_lib.config.studies import OptimizationMethod, Size, Studies, StudyName, TranslationMethod
from pipeline_lib.config.values import resolve_values
from pipeline_lib.runtime.errors import ConfigError
from pipeline_lib.runtime.files import SHIPPED

__all__ = [
    "AttributeLoss",
    "BackboneNetwork",
    "BoxRegion",
    "Certify",
    "Config",
    "Data",
    "DetectorNetwork",
    "Detectors",
    "Edit",
    "Editor",
    "Encoder",
    "EncoderTraining",
    "Evaluate",
    "GanTraining",
    "Generator",
    "GivenNetwork",
    "GivenParts",
    "GrowthPhase",
    "LibraryNetwork",
    "LocalDiscriminator",
    "LocalLoss",
    "MaskSampling",
    "OnnxNetwork",
    "OnnxParts",
    "OptimizationMethod",
    "PartRegion",
    "Parts",
    "PartsBackend",
    "Precision",
    "Published",
    "RateRule",
    "Rebalance",
    "Retrain",
    "Sample",
    "Size",
    "Square",
    "Studies",
    "StudyName",
    "SupervisedTraining",
    "TrainedHere",
    "TransformersNetwork",
    "TransformersParts",
    "TranslationMethod",
    "Utility",
    "load_config",
    "named_files",
    "parse_config",
    "read_config",
]


def load_config(path: str | Path) -> Config:
    """Read and check a config file.

    Raises:
        ConfigError: names the key, the value found and how to fix it.
    """
    return parse_config(read_config(path), source=str(path))


def read_config(path: str | Path) -> dict[str, Any]:
    """Read the values of a config file, and refuse one that Snakemake would not only read but run.

    Snakemake hands a config file to yte, which runs expressions in it as Python code if it holds this key at the top.

    Raises:
        ConfigError: it is missing or not YAML, or holds code.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: contains no keys; start from a copy of config/config.yaml")
    if "__use_yte__" in values:
        raise ConfigError(
            f"{path}: `__use_yte__` would have Snakemake run the file's expressions as Python code; "
            "remove it and write plain values"
        )
    return values


def parse_config(values: dict[str, Any], source: str = "config") -> Config:
    """Check config values; errors name `source` as their origin.

    Raises:
        ConfigError: names the key, the value found and how to fix it.
    """
    try:
        config = Config.model_validate(_normalised(below(values)))
        check_paths(config)
        config = resolve_values(config)
        for check in (check_attributes, check_names, check_targets, check_sections, check_networks):
            check(config)
    except ValidationError as error:
        schema = Config.model_json_schema()
        problems = "; ".join(describe(problem, schema) for problem in error.errors(include_url=False)[:5])
        raise ConfigError(f"{source}: {problems}") from None
    except ValueError as problem:
        raise ConfigError(f"{source}: {problem}") from None
    return config


def _normalised(value: Any) -> Any:
    """Return values in which every string has Unicode's form NFC, as names in label tables have when they are read.

    A path in another form stays as it is, because that may be the name of a file. One below `resources/` that is not in
    this folder is that of the file of this name that comes with the library, if there is one.
    """
    if isinstance(value, dict):
        return {_normalised(key): _normalised(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_normalised(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if value.startswith("resources/") and not Path(value).exists() and (SHIPPED / value).exists():
        return str(SHIPPED / value)
    if unicodedata.is_normalized("NFC", value):
        return value
    try:
        return value if Path(value).exists() else unicodedata.normalize("NFC", value)
    except (OSError, ValueError):  # too long to be a path, or not one
        return unicodedata.normalize("NFC", value)
