"""Groups of images: those in which some attributes hold and others do not."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import TypeVar

Holds = TypeVar("Holds")  # arrays or tensors of bool


def in_group(holds: Mapping[str, Holds], where: Mapping[str, bool]) -> Holds:
    """Return which images match every condition of `where`; arrays or tensors of bool, of any one shape."""
    everyone = next(iter(holds.values())) | True
    return functools.reduce(operator.and_, (holds[attribute] == value for attribute, value in where.items()), everyone)


def group_name(where: Mapping[str, bool]) -> str:
    """Name the images where all conditions hold: `long_hair and not hat`; `all` without a condition."""
    return " and ".join(name if value else f"not {name}" for name, value in where.items()) or "all"
