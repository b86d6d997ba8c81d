"""Runs of one recipe: the same config with other seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline_lib.config import Config

#: Keys of the seeds beside the run's own: of the images or their random split, and of the trained detectors.
OTHER_SEEDS = ("data.seed", "detectors.selector.seed", "detectors.referee.seed", "retrain.second_selector.seed")
#: Keys in which runs of one recipe may differ, with everything below them.
OF_ONE_RUN = ("run", "seed", *OTHER_SEEDS, "certify.labels", "certify.samples", "rebalance.labels")
APART = 1000  # between the seeds of a detector in two runs, so that none is that of another detector


def reseed(config: Config, seed: int) -> dict[str, Any]:
    """Return the values of a config for one of several runs, with every default.

    Images that are drawn, or the random split of those that are not, are those of this seed, and detectors are trained
    from other random weights. Labels by eye are left out, because they are of another run's images.

    Args:
        config: the config of the recipe.
        seed: seed of the run, from 0. Images and detectors of 0 are those of a config that names no seeds.
    """
    values = config.model_dump(mode="json")
    values |= {"run": f"{config.run}-seed-{seed}", "seed": seed}
    for key in OTHER_SEEDS:
        *sections, name = key.split(".")
        section: Any = values
        for part in sections:
            section = section[part] if section and part in section else None
        if section and name in section:
            section[name] = seed if key == "data.seed" else section[name] + APART * seed
    values["certify"] |= {"labels": None, "samples": None}
    values["rebalance"] |= {"labels": None}
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
