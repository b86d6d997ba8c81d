"""Groups of images, defined by conditions on their attributes."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd

from pipeline_lib.config import RateRule
from pipeline_lib.config.names import group_name as group_name

Holds = TypeVar("Holds")  # arrays or tensors of bool, or of `holds_of`


def holds_of(rows: pd.DataFrame, attributes: Sequence[str]) -> dict[str, np.ndarray]:
    """Return whether images have attributes by labels or scores: 1, 0, or NaN where it is unknown, float32 (n,).

    NaN equals neither value, and no logic with such an array goes unnoticed, as it would if unknown were false.
    """
    found = {name: rows[name].to_numpy(float, na_value=np.nan) for name in attributes}
    return {name: np.where(np.isnan(values), np.nan, values > 0.5).astype(np.float32) for name, values in found.items()}


def in_group(holds: Mapping[str, Holds], where: Mapping[str, bool]) -> Holds:
    """Return which images match every condition of `where`, as bool arrays or tensors of the same shape.

    An image of which a condition is unknown does not match it.
    """
    first = next(iter(holds.values()))
    everyone = (first == first) | True
    return functools.reduce(operator.and_, (holds[attribute] == value for attribute, value in where.items()), everyone)


def any_unknown(holds: Mapping[str, np.ndarray]) -> bool:
    """Return whether any attribute of any image is unknown."""
    return any(np.isnan(values).any() for values in holds.values())


def attributes_of(targets: Sequence[RateRule]) -> list[str]:
    """Return the names of the attributes of targets and their conditions, sorted."""
    return sorted({name for target in targets for name in (target.attribute, *target.where)})


def target_gap(targets: Sequence[RateRule]) -> float | None:
    """Return the group gap that the target rates of one attribute leave; None of a single one.

    Of two it is the first minus the second. The gap of more than two is what rates are apart beyond their targets, and
    so to be 0; see `evaluation.rates.group_gap`.
    """
    if len(targets) == 2:
        return targets[0].rate - targets[1].rate
    return 0.0 if len(targets) > 2 else None


def counts_for(holds: Mapping[str, np.ndarray], target: RateRule) -> np.ndarray:
    """Return which images count for a target, bool (n,): those of its group of which its attribute is known."""
    return in_group(holds, target.where) & ~np.isnan(holds[target.attribute])


def not_counted(holds: Mapping[str, np.ndarray], target: RateRule) -> int:
    """Return how many images may be of a target's group, but do not count, since not all that it names is known."""
    possible = [(holds[name] == value) | np.isnan(holds[name]) for name, value in target.where.items()]
    return int((~counts_for(holds, target) & np.all(possible, axis=0)).sum())


def members(holds: Mapping[str, np.ndarray], targets: Sequence[RateRule]) -> tuple[np.ndarray, np.ndarray]:
    """Return which images count for each target, and which of these have its attribute, bool (targets, n)."""
    inside = np.stack([counts_for(holds, target) for target in targets])
    return inside, inside & np.stack([holds[target.attribute] == 1 for target in targets])
