"""Masks of the parts that a region is made of, read from a table of parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.config import BoxRegion, PartRegion
from pipeline_lib.data.tables import read_table

BOX = "box"  # the only part of images without a segmenter


def parts_of(region: PartRegion | BoxRegion) -> tuple[str, ...]:
    """Return the parts whose masks a region needs: of a box, what donors must show, or else the box itself."""
    return region.parts or (BOX,)


class PartMasks(Mapping[str, np.ndarray]):
    """The masks, bool (resolution, resolution), of some parts taken together, by image id.

    They are unpacked, from one bit per pixel, only on access.

    Args:
        parts: a table of parts.
        names: names of the parts.
        resolution: side of the images in pixels.
        least_pixels: a part of fewer pixels is ignored.
    """

    def __init__(self, parts: Path, names: Sequence[str], resolution: int, least_pixels: int = 1):
        wanted = [("part", "in", list(names)), ("pixels", ">=", least_pixels)]
        table = read_table(parts, "parts", columns=["image_id", "part", "pixels", "mask"], filters=wanted)
        rows, images = pd.factorize(table["image_id"])
        self._row = {name: row for row, name in enumerate(images)}
        length = (resolution * resolution + 7) // 8
        #: uint8 (n + 1, bytes), with a row for each image that has a part and an empty last one for all others.
        self.packed = np.zeros((len(images) + 1, length), np.uint8)
        found = np.frombuffer(b"".join(table["mask"]), np.uint8).reshape(-1, length)
        np.bitwise_or.at(self.packed, rows, found)
        self._resolution = resolution

    def rows(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return the rows of `packed` with the images' masks, int64 (m,), the last and empty one without a part."""
        return np.array([self._row.get(image_id, len(self._row)) for image_id in image_ids], np.int64)

    def __getitem__(self, image_id: str) -> np.ndarray:
        bits = np.unpackbits(self.packed[self._row[image_id]], count=self._resolution**2)
        return bits.reshape(self._resolution, self._resolution).astype(bool)

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)
