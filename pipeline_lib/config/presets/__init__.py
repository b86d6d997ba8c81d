"""Presets: YAML files with the values of a config below those that the user's file gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline_lib.config.messages import check_name

NAMES = ("avatars", "photos", "gpu-256")
KINDS = ("kind", "reader", "backend")  # keys that choose between sections, of which no two can be merged


def below(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a config with those of its preset where it gives none.

    Raises:
        ValueError: there is no such preset.
    """
    name = values.get("preset")
    if name is None:
        return values
    check_name("preset", name, NAMES)
    return _merged(yaml.safe_load(Path(__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8")), values)


def _merged(preset: Any, given: Any) -> Any:
    """Return what is given, and of sections that it leaves out those of the preset; lists and kinds are not merged."""
    if not (isinstance(preset, Mapping) and isinstance(given, Mapping)):
        return given
    if any(preset.get(key, given.get(key)) != given.get(key, preset.get(key)) for key in KINDS):
        return given
    return {**preset, **{key: _merged(preset.get(key), value) for key, value in given.items()}}
