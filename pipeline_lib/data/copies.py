"""Copies of one picture among the images of a dataset, found by their pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from pipeline_lib.data.sources import Item


def digest_of_pixels(image: np.ndarray) -> bytes:
    """Return 16 bytes that are the same for images with the same pixels, uint8 (side, side, 3)."""
    return hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest()


class Copies:
    """What follows for each image from the copies among all of them, and who is one person because of copies.

    Attributes:
        originals: id of the first image of the same picture, by the id of each later one.
        contradictions: what is wrong, by the ids of all copies of a picture whose labels say the opposite.
        in_training: ids of held-out images of a training picture, or of a person whom a copy shows to be in training.
    """

    def __init__(self, images: Sequence[tuple[Item, str, bytes | None]]) -> None:
        """Compare all images, each with its split and the digest of its pixels; None: not to be compared."""
        self.originals: dict[str, str] = {}
        self.contradictions: dict[str, str] = {}
        self._same_as: dict[tuple[str, str], tuple[str, str]] = {}
        pictures: dict[bytes, list[Item]] = {}
        for item, _, digest in images:
            if digest is not None:
                pictures.setdefault(digest, []).append(item)
        for same in pictures.values():
            for item in same[1:]:
                self.originals[item.image_id] = same[0].image_id
                self._unite(item, same[0])
            if reason := _contradiction(same):
                self.contradictions |= dict.fromkeys((item.image_id for item in same), reason)
        trained = {
            self._root(item)
            for item, split, _ in images
            if split == "train" and item.image_id not in self.contradictions
        }
        self.in_training = {
            item.image_id for item, split, _ in images if split == "held_out" and self._root(item) in trained
        }

    def person_of(self, item: Item) -> str | None:
        """Return the person that an image shows, by its label or that of a copy; None if nothing is known.

        Where no person is named, the name of the first image stands for it.
        """
        kind, name = self._root(item)
        return None if kind == "image" and name == item.image_id else name

    def _unite(self, item: Item, first: Item) -> None:
        person, other = self._root(first), self._root(item)
        if person != other:
            self._same_as[other] = person

    def _root(self, item: Item) -> tuple[str, str]:
        person = ("image", item.image_id) if item.person is None else ("person", item.person)
        while person in self._same_as:
            person = self._same_as[person]
        return person


def _contradiction(copies: Sequence[Item]) -> str | None:
    """Say which labels of copies are the opposite of each other; None if there are none."""
    known: dict[tuple[str, bool], str] = {}  # first image with this label
    for item in copies:
        for name, value in item.attributes.items():
            if value is not None:
                other = known.get((name, not value))
                if other is not None:
                    return f"{other} and {item.image_id} have the same pixels, but not the same `{name}`; correct one"
                known.setdefault((name, value), item.image_id)
    return None
