"""Runs of one recipe: the same config with other seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline_lib.config import Config

#: Key of the seed beside the run's own: that of the images or of their random split.
DATA_SEED = "data.seed"
#: Labels by eye, which are of the images of one run.
LABELS = ("certify.labels", "rebalance.labels")
#: Keys in which runs of one recipe may differ.
OF_ONE_RUN = ("run", "seed", DATA_SEED, *LABELS)


def value_of(values: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key with dots in a config; None if a section on its way is missing."""
    found: Any = values
    for name in key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def reseed(config: Config, seed: int) -> dict[str, Any]:
    """Return the values of a config for one of several runs, with every default.

    Images that are drawn, or the random split of those that are not, are those of this seed. Weights that the config
    names stay.

    Args:
        config: the config of the recipe, without labels by eye.
        seed: seed of the run.
    """
    values = config.model_dump(mode="json")
    values |= {"run": f"{config.run}-run-{seed}", "seed": seed}
    if "seed" in values["data"]:
        values["data"]["seed"] = seed
    return values


def first_difference(one: Mapping[str, Any], other: Mapping[str, Any], under: str = "") -> str | None:
    """Return the first key in which two configs differ that are to be of one recipe; None if there is none."""
    for name in sorted({*one, *other}):
        key = f"{under}{name}"
        values = one.get(name), other.get(name)
        if key in OF_ONE_RUN or values[0] == values[1]:
            continue
        if all(isinstance(value, Mapping) for value in values):
            if found := first_difference(*values, f"{key}."):
                return found
        else:
            return key
    return None
