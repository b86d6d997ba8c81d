"""Groups of images, defined by conditions on their attributes."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import TypeVar

Holds = TypeVar("Holds")  # arrays or tensors of bool


def in_group(holds: Mapping[str, Holds], where: Mapping[str, bool]) -> Holds:
    """Return which images match every condition of `where`, as bool arrays or tensors of the same shape."""
    everyone = next(iter(holds.values())) | True
    return functools.reduce(operator.and_, (holds[attribute] == value for attribute, value in where.items()), everyone)


def group_name(where: Mapping[str, bool]) -> str:
    """Return the name of a group, such as `long_hair and not hat`, or `all` without conditions."""
    return " and ".join(name if value else f"not {name}" for name, value in where.items()) or "all"
