"""The interface between dataset readers and the first stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline_lib.runtime import seeding


@dataclass(frozen=True)
class Record:
    """One image and its ground truth.

    Attributes:
        image: uint8 (resolution, resolution, 3).
        codes: part code of every pixel, uint8 (resolution, resolution); None if the dataset has no masks.
        attributes: ground truth by attribute.
        person: identity of the person shown; None if unknown.
    """

    image: np.ndarray
    codes: np.ndarray | None
    attributes: dict[str, bool]
    person: int | None = None


@dataclass(frozen=True)
class Item:
    """The name of an image that has not been read yet, and what the reader needs to find it."""

    image_id: str
    origin: Any


@dataclass(frozen=True)
class Source:
    """A dataset that is open for reading.

    Attributes:
        train: training images.
        held_out: held-out images.
        preprocessing: description of the preprocessing, stored in the shards.
        read: reads an item as a `Record` in a worker process; raises `BadImageError` for an unusable image.
        tolerated: largest tolerated share of unusable images.
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
    """Return the training items and the held-out items."""
    pairs = list(zip(items, held_out, strict=True))
    return [item for item, held in pairs if not held], [item for item, held in pairs if held]


class BadImageError(Exception):
    """An image that cannot be used; the message is the reason."""
