"""Classes of images that count alike for every target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from pipeline_lib.config import RateRule
from pipeline_lib.rebalance.groups import any_unknown, attributes_of, members


class Classes:
    """What targets tell apart. Two images are of one class if they are in the same groups with the same values there.

    Targets of one attribute in two groups have four classes, and a fifth if an image can be in neither group. Targets
    may be of several attributes, and a group may be one of images with an attribute that is edited itself. An image of
    which an attribute is unknown counts for the targets that do not name it.

    Args:
        targets: the target rates.
        unknown: whether attributes can be unknown.

    Attributes:
        attributes: names of the attributes of targets and conditions, sorted.
        inside: whether a class is in the group of each target, bool (targets, classes).
        positive: whether it also has the target's attribute, bool (targets, classes).
    """

    def __init__(self, targets: Sequence[RateRule], unknown: bool = False):
        self.attributes = attributes_of(targets)
        self._values = (np.nan, 0.0, 1.0) if unknown else (0.0, 1.0)
        self._combinations = np.array(list(product(self._values, repeat=len(self.attributes))))
        holds = dict(zip(self.attributes, self._combinations.T, strict=True))
        inside, positive = members(holds, targets)
        seen, classes = np.unique(inside.astype(int) + positive, axis=1, return_inverse=True)
        self.inside, self.positive, self._class_of = seen > 0, seen > 1, classes.reshape(-1)

    def __len__(self) -> int:
        return self.inside.shape[1]

    def of(self, holds: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the class of each image, int64 (n,), given whether it has each of `attributes`, by `holds_of`."""
        has_unknown = bool(np.isnan(self._values[0]))
        if not has_unknown and any_unknown({name: holds[name] for name in self.attributes}):
            raise ValueError("an attribute is unknown, and these classes have no unknown ones")
        place: np.ndarray | int = 0
        for name in self.attributes:
            digit = np.nan_to_num(np.asarray(holds[name], float), nan=-1).astype(np.int64) + has_unknown
            place = place * len(self._values) + digit
        return self._class_of[place]

    def possible(self, labels: pd.DataFrame) -> np.ndarray:
        """Return which classes each image can be of by nullable bool labels, (n, classes).

        Of an image that could not be determined these are several; classes of unknown values are none of them.
        """
        shown = labels[self.attributes].to_numpy(float, na_value=np.nan)
        fits = (np.isnan(shown)[:, None] | (shown[:, None] == self._combinations)).all(axis=2)
        fits &= ~np.isnan(self._combinations).any(axis=1)
        return fits @ (self._class_of[:, None] == np.arange(len(self)))

    def of_edits(
        self, before: Mapping[str, np.ndarray], attribute: np.ndarray, wanted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the classes of edited images before the edit, and after one that succeeds, both int64 (n,).

        Args:
            before: whether each image had each of `attributes`, by `holds_of`.
            attribute: name of the attribute that is edited, (n,).
            wanted: value that it is to get, bool (n,).
        """
        after = {name: np.where(attribute == name, wanted, values) for name, values in before.items()}
        return self.of(before), self.of(after)

    def count(self, holds: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return how many images are of each class, int64 (classes,)."""
        return np.bincount(self.of(holds), minlength=len(self))

    def rates(self, counts: np.ndarray) -> np.ndarray:
        """Return the rate of each target, (..., targets), given images of each class, (..., classes).

        It is NaN for a group without images.
        """
        images, positives = (counts @ member.T.astype(float) for member in (self.inside, self.positive))
        with np.errstate(invalid="ignore"):
            return positives / images

    def gradient(self, counts: np.ndarray, of: np.ndarray) -> np.ndarray:
        """Return how much one more image of each class changes a weighted sum of the rates, (classes,).

        Args:
            counts: images of each class, (classes,).
            of: weight of each rate, (targets,); those of groups without images count for nothing.
        """
        images = counts @ self.inside.T.astype(float)
        weights = np.where(images > 0, of, 0) / np.maximum(images, 1)
        return weights @ (self.positive - np.nan_to_num(self.rates(counts))[:, None] * self.inside)
