"""Groups of images, defined by conditions on their attributes."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd

from pipeline_lib.config import RateRule

UNKNOWN = -1  # the value of an attribute of which nobody knows whether the image has it
Holds = TypeVar("Holds")  # arrays or tensors of bool, or of 1, 0 and `UNKNOWN`


def holds_of(rows: pd.DataFrame, attributes: Sequence[str]) -> dict[str, np.ndarray]:
    """Return what labels or scores say of images: 1 for each attribute that one has, 0, or `UNKNOWN`, int8 (n,)."""
    found = {name: rows[name].to_numpy(float, na_value=np.nan) for name in attributes}
    return {name: np.where(np.isnan(values), UNKNOWN, values > 0.5).astype(np.int8) for name, values in found.items()}


def in_group(holds: Mapping[str, Holds], where: Mapping[str, bool]) -> Holds:
    """Return which images match every condition of `where`, as bool arrays or tensors of the same shape.

    An image of which a condition is unknown does not match it.
    """
    first = next(iter(holds.values()))
    everyone = first == first
    return functools.reduce(operator.and_, (holds[attribute] == value for attribute, value in where.items()), everyone)


def group_name(where: Mapping[str, bool]) -> str:
    """Return the name of a group, such as `long_hair and not hat`, or `all` without conditions."""
    return " and ".join(name if value else f"not {name}" for name, value in where.items()) or "all"


def any_unknown(holds: Mapping[str, np.ndarray]) -> bool:
    """Return whether any attribute of any image is unknown."""
    return any((values == UNKNOWN).any() for values in holds.values())


def attributes_of(targets: Sequence[RateRule]) -> list[str]:
    """Return the names of the attributes of targets and their conditions, sorted."""
    return sorted({name for target in targets for name in (target.attribute, *target.where)})


def counts_for(holds: Mapping[str, np.ndarray], target: RateRule) -> np.ndarray:
    """Return which images count for a target, bool (n,): those of its group of which its attribute is known."""
    return in_group(holds, target.where) & (holds[target.attribute] != UNKNOWN)


def not_counted(holds: Mapping[str, np.ndarray], target: RateRule) -> int:
    """Return how many images may be of a target's group, but do not count, since not all that it names is known."""
    possible = [(holds[name] == value) | (holds[name] == UNKNOWN) for name, value in target.where.items()]
    return int((~counts_for(holds, target) & np.all(possible, axis=0)).sum())


def members(holds: Mapping[str, np.ndarray], targets: Sequence[RateRule]) -> tuple[np.ndarray, np.ndarray]:
    """Return which images count for each target, and which of these have its attribute, bool (targets, n)."""
    inside = np.stack([counts_for(holds, target) for target in targets])
    return inside, inside & np.stack([holds[target.attribute] == 1 for target in targets])
