"""Copies of one picture among the images of a dataset, found by their pixels."""

from __future__ import annotations

import hashlib

import numpy as np

from pipeline_lib.data.sources import Item


def digest_of_pixels(image: np.ndarray) -> bytes:
    """Return 16 bytes that are the same for images with the same pixels, uint8 (side, side, 3)."""
    return hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest()


def contradiction(item: Item, original: Item) -> str | None:
    """Return an attribute of which the labels of two copies say the opposite; None if there is none."""
    for name, value in item.attributes.items():
        if value is not None and original.attributes[name] not in (None, value):
            return name
    return None


class Copies:
    """The first image of every picture, and who is the same person because pictures of them are the same."""

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[Item, str]] = {}
        self._same_as: dict[str, str] = {}

    def first_of(self, item: Item, split: str, digest: bytes | None) -> tuple[Item, str]:
        """Return the first image with these pixels and its split: itself, unless it is a copy."""
        return (item, split) if digest is None else self._first.setdefault(digest, (item, split))

    def unite(self, item: Item, original: Item) -> None:
        """Note that two images show one person; where no person is named, the name of the first image stands for it."""
        person, other = self._root(original.person or original.image_id), self._root(item.person or item.image_id)
        if person != other:
            self._same_as[other] = person

    def person_of(self, item: Item) -> str | None:
        """Return the person that an image shows, by its label or that of a copy; None if nothing is known."""
        person = self._root(item.person or item.image_id)
        return None if person == item.image_id and item.person is None else person

    def _root(self, person: str) -> str:
        while person in self._same_as:
            person = self._same_as[person]
        return person
