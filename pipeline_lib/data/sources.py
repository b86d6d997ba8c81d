"""The interface between dataset readers and the first stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline_lib.runtime import seeding

IN_TRAINING = "a held-out image of a person who is also in training"


@dataclass(frozen=True)
class Record:
    """The pixels of one image.

    Attributes:
        image: uint8 (resolution, resolution, 3).
        codes: part code of every pixel, uint8 (resolution, resolution); None if the dataset has no masks.
        conversions: what was converted in reading, such as `CMYK to RGB`; the same words for all of a kind.
    """

    image: np.ndarray
    codes: np.ndarray | None = None
    conversions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """An image that has not been read yet.

    Attributes:
        image_id: its name.
        origin: what the reader needs to find its pixels.
        attributes: ground truth by attribute; None where it is unknown.
        person: identity of the person shown; None if unknown.
    """

    image_id: str
    origin: Any
    attributes: Mapping[str, bool | None]
    person: str | None = None


@dataclass(frozen=True)
class LeftOut:
    """A file or a row of the source that is no image of the dataset, and why.

    Attributes:
        name: path of the file relative to the folder, or the name in the label table.
        reason: one line, the same for all of a kind, such as `a file without a row in the label table`.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Source:
    """A dataset that is open for reading.

    Attributes:
        train: training images.
        held_out: held-out images.
        preprocessing: description of the preprocessing, stored in the shards.
        read: reads an item as a `Record` in a worker process; raises `BadImageError` for an unusable image.
        tolerated: largest tolerated share of unusable images.
        left_out: files and rows that are no images of the dataset.
        missing: names of images whose file or mask is not there, as far as that is known before they are read.
        equal_are_copies: whether images with the same pixels are copies of one picture, as photographs are; drawings
            that are drawn independently can be equal by chance.
        values: how often each cell of a column of which values are attributes occurs, blank ones included.

    Held-out images of a person who is also in training are left out, whoever made the split: nothing that is measured
    on them would be new.
    """

    train: Sequence[Item]
    held_out: Sequence[Item]
    read: Callable[[Item], Record]
    preprocessing: str
    tolerated: float = 0.0
    left_out: Sequence[LeftOut] = ()
    missing: Sequence[str] = ()
    equal_are_copies: bool = True
    values: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shown = {item.person for item in self.train} - {None}
        out = [item for item in self.held_out if item.person in shown]
        if out:
            names = {item.image_id for item in out}
            left_out = [*self.left_out, *(LeftOut(item.image_id, IN_TRAINING) for item in out)]
            object.__setattr__(self, "held_out", [item for item in self.held_out if item.person not in shown])
            object.__setattr__(self, "left_out", left_out)
            object.__setattr__(self, "missing", [name for name in self.missing if name not in names])


def hold_out(count: int, share: float, seed: int, persons: Sequence[str | None] | None = None) -> np.ndarray:
    """Draw which of `count` images are held out, bool (count,).

    Args:
        count: number of images.
        share: share that is held out; with `persons` the least that consists of whole persons.
        seed: of the draw, which is the same where no person has two images.
        persons: who is shown in each image, all of whose images are on one side; None where it is unknown.
    """
    drawn = seeding.numpy_generator(seed, "held out").permutation(count)
    first: dict[str, int] = {}  # image of each person
    of_person = [
        row if person is None else first.setdefault(person, row) for row, person in enumerate(persons or [None] * count)
    ]
    places = np.argsort(np.argsort(drawn[of_person], kind="stable"))  # a person's images follow each other
    return places[of_person] < round(share * count)


def divide(items: Sequence[Item], held_out: np.ndarray) -> tuple[list[Item], list[Item]]:
    """Return the training items and the held-out items."""
    pairs = list(zip(items, held_out, strict=True))
    return [item for item, held in pairs if not held], [item for item, held in pairs if held]


class BadImageError(Exception):
    """An image that cannot be used; the message is the reason."""
