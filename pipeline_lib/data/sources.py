"""What a reader of any dataset gives the first stage: items by split, and how an item becomes an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline_lib.runtime import seeding


@dataclass(frozen=True)
class Record:
    """One image and what is true of it.

    Attributes:
        image: uint8 (resolution, resolution, 3).
        codes: part of every pixel, uint8 (resolution, resolution); None where the dataset has no masks.
        attributes: truth by name.
        person: number of the person shown; None where the dataset does not say.
    """

    image: np.ndarray
    codes: np.ndarray | None
    attributes: dict[str, bool]
    person: int | None = None


@dataclass(frozen=True)
class Item:
    """An image that has not been read yet: its name, and what the reader needs to find it."""

    image_id: str
    origin: Any


@dataclass(frozen=True)
class Source:
    """A dataset, open for reading.

    Attributes:
        train: images that networks may learn from.
        held_out: images that no network is trained on.
        preprocessing: how an image file becomes pixels, kept in the shards.
        read: makes a `Record` of an item, in a process of its own; raises `BadImageError` where it cannot.
        tolerated: largest share of unreadable images.
    """

    train: Sequence[Item]
    held_out: Sequence[Item]
    read: Callable[[Item], Record]
    preprocessing: str
    tolerated: float = 0.0


def hold_out(count: int, share: float, seed: int) -> np.ndarray:
    """Draw which of `count` images are held out, bool (count,)."""
    return seeding.numpy_generator(seed, "held out").permutation(count) < round(share * count)


def divide(items: Sequence[Item], held_out: np.ndarray) -> tuple[list[Item], list[Item]]:
    """Return the items to train on, and those that are held out."""
    pairs = list(zip(items, held_out, strict=True))
    return [item for item, held in pairs if not held], [item for item, held in pairs if held]


class BadImageError(Exception):
    """An image that cannot be used; the message is the reason."""
