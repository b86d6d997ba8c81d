"""Groups of images, defined by conditions on their attributes."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from pipeline_lib.config import RateRule
from pipeline_lib.config.names import group_name as group_name

Holds = TypeVar("Holds")  # arrays or tensors of bool


def in_group(holds: Mapping[str, Holds], where: Mapping[str, bool]) -> Holds:
    """Return which images match every condition of `where`, as bool arrays or tensors of the same shape."""
    everyone = next(iter(holds.values())) | True
    return functools.reduce(operator.and_, (holds[attribute] == value for attribute, value in where.items()), everyone)


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


def members(holds: Mapping[str, np.ndarray], targets: Sequence[RateRule]) -> tuple[np.ndarray, np.ndarray]:
    """Return which images are in each target's group, and which of these have its attribute, bool (targets, n)."""
    inside = np.stack([in_group(holds, target.where) for target in targets])
    return inside, inside & np.stack([holds[target.attribute] for target in targets])
