"""Runs of one recipe: the same config with other seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline_lib.config import Config

#: Keys of the seeds beside the run's own: of the images or their random split, and of the trained detectors.
OTHER_SEEDS = ("data.seed", "detectors.selector.seed", "detectors.referee.seed")
#: Labels by eye, which are of the images of one run.
LABELS = ("certify.labels", "rebalance.labels")
#: Keys in which runs of one recipe may differ.
OF_ONE_RUN = ("run", "seed", *OTHER_SEEDS, *LABELS)
APART = 1000  # between the seeds of a detector in two runs, so that none is that of another detector


def value_of(values: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key with dots in a config; None if a section on its way is missing."""
    found: Any = values
    for name in key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def reseed(config: Config, seed: int) -> dict[str, Any]:
    """Return the values of a config for one of several runs, with every default.

    Images that are drawn, or the random split of those that are not, are those of this seed, and detectors are trained
    from other random weights. Weights that the config names stay.

    Args:
        config: the config of the recipe, without labels by eye.
        seed: seed of the run.
    """
    values = config.model_dump(mode="json")
    values |= {"run": f"{config.run}-run-{seed}", "seed": seed}
    for key in OTHER_SEEDS:
        if (own := value_of(values, key)) is not None:
            section, _, name = key.rpartition(".")
            value_of(values, section)[name] = seed if key == "data.seed" else own + APART * seed
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
