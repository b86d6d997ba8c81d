"""Images with their part masks, and the donors of each edit."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config import Edit
from pipeline_lib.data.part_masks import PartMasks
from pipeline_lib.data.shards import read_shards
from pipeline_lib.data.tables import read_table
from pipeline_lib.editing.choice import closest
from pipeline_lib.imaging.collages import region_masks
from pipeline_lib.imaging.distances import seam
from pipeline_lib.imaging.masks import unpack_masks
from pipeline_lib.imaging.transfer import at_once, to_float, upload
from pipeline_lib.rebalance.groups import holds_of
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError

logger = logging.getLogger(__name__)

GATHERERS = 8  # threads, since rows of a mapped file are waited for
SHARE_KEPT = 0.5  # of a GPU's free memory that an image set may take
POOLED_AT_ONCE = 8192  # donors of 64 pixels that a GPU compares at a time
SEAM_WIDTH = 2 / 64  # of what is compared around a region, as a share of the image's side


class ImageBatch(NamedTuple):
    """Images, uint8 (n, H, W, 3), and their part masks, packed (n, bytes)."""

    pixels: Tensor
    packed: Tensor

    def to(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return images (n, 3, H, W) in [-1, 1] and masks (n, 1, H, W) of {0, 1} on the device."""
        images = to_float(self.pixels.permute(0, 3, 1, 2), device)
        return images, unpack_masks(upload(self.packed, device), images.shape[-1])

    def split(self, size: int) -> Iterator[ImageBatch]:
        """Yield `size` images at a time."""
        return map(ImageBatch, self.pixels.split(size), self.packed.split(size))

    def take(self, rows: Tensor) -> ImageBatch:
        """Return the images at `rows`, int64 (m,)."""
        return ImageBatch(self.pixels[rows], self.packed[rows])

    def upload(self, device: torch.device) -> ImageBatch:
        """Copy images and masks to the device as they are."""
        return ImageBatch(upload(self.pixels, device), upload(self.packed, device))


class ImageSet:
    """An image set with the masks of the region's parts, for access in any order.

    Args:
        images: its shards.
        parts: its table of parts.
        names: names of the parts that are swapped.
    """

    def __init__(self, images: list[Path], parts: Path, names: Sequence[str]):
        self.names, self.pixels = read_shards(images)
        self.position = {name: number for number, name in enumerate(self.names)}
        self._masks = PartMasks(parts, names, self.pixels.shape[1])
        self._kept: ImageBatch | None = None
        self._mask_rows = self._masks.rows(self.names)
        self.with_part = np.flatnonzero(self._mask_rows < len(self._masks))
        if len(self.with_part) < 2:
            named = " or ".join(f"`{part}`" for part in names)
            raise DataError(
                f"{parts}: only {len(self.with_part)} images have the part {named}, and a swap needs two; "
                "swap another part or a box"
            )

    def keep_on(self, device: torch.device) -> None:
        """Keep all images and masks on a GPU that has room for them, so that donors are gathered there."""
        if device.type != "cuda":
            return
        size, free = self.pixels.nbytes + self._masks.packed.nbytes, torch.cuda.mem_get_info(device)[0]
        if size > SHARE_KEPT * free:
            logger.info("images of %.1f GiB are gathered by the CPU; the GPU has %.1f free", size / 2**30, free / 2**30)
            return
        self._kept = ImageBatch(*(torch.from_numpy(rows).to(device) for rows in (self.pixels, self._masks.packed)))

    def look(self, positions: np.ndarray) -> ImageBatch:
        """Gather images and masks; a mask is empty where no part was found."""
        rows = self._mask_rows[positions]
        if self._kept is not None:
            places, of_masks = (torch.from_numpy(found).to(self._kept.pixels.device) for found in (positions, rows))
            return ImageBatch(self._kept.pixels[places], self._kept.packed[of_masks])
        return ImageBatch(torch.from_numpy(gather(self.pixels, positions)), torch.from_numpy(self._masks.packed[rows]))

    def donors(self, position: int, count: int, seed: int, name: str, pool: np.ndarray | None = None) -> np.ndarray:
        """Draw `count` distinct donors for the image at `position`: a function of (seed, set, position).

        Args:
            position: of the image in the set, which is no donor of its own.
            count: how many.
            seed: of the run.
            name: of the set, for the random stream.
            pool: positions that donors are drawn from, ascending; None: every image with a part.

        Raises:
            DataError: the pool has fewer.
        """
        pool = self.with_part if pool is None else pool
        own = int(np.searchsorted(pool, position))
        is_donor = own < len(pool) and pool[own] == position
        others = len(pool) - is_donor
        if count > others:
            raise DataError(
                f"`rebalance.edit.candidates` or `pool`: {count} donors requested, but {name} has only {others}; "
                "use fewer" + ("" if len(pool) == len(self.with_part) else " or `donors: any`")
            )
        drawn = seeding.numpy_generator(seed, "donors", name, position).choice(others, count, replace=False)
        return pool[drawn + (is_donor & (drawn >= own))]


def gather(rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return rows at positions, both (n, ...); in several threads, as most of the time goes into waiting for a disk."""
    found = np.empty((len(positions), *rows.shape[1:]), rows.dtype)

    def take(places: np.ndarray, out: np.ndarray) -> None:
        np.take(rows, places, axis=0, out=out, mode="clip")  # `raise` would copy the output

    with ThreadPoolExecutor(GATHERERS) as pool:
        list(pool.map(take, np.array_split(positions, GATHERERS), np.array_split(found, GATHERERS)))
    return found


def donor_pools(
    image_set: ImageSet, attribute: str, table: Path, kind: str, settings: Edit, name: str
) -> dict[bool, np.ndarray | None]:
    """Return the positions of the possible donors for each value of an attribute; None for every image with a part.

    An image of which the attribute is unknown is no donor for either value.
    """
    if settings.donors == "any":
        return {True: None, False: None}
    rows = read_table(table, kind, columns=["image_id", attribute]).set_index("image_id")
    has = holds_of(rows.loc[image_set.names], [attribute])[attribute]
    return {value: image_set.with_part[has[image_set.with_part] == value] for value in (True, False)}


def select_donors(contexts: ImageBatch, donors: ImageBatch, settings: Edit, device: torch.device) -> Tensor:
    """Return which of a context's donors to try, int64 (n, candidates): those with the least seam, in their order.

    Args:
        contexts: n images.
        donors: the pools of all contexts, one after the other.
        settings: the config section.
        device: where to compute.
    """
    size = len(donors.pixels) // len(contexts.pixels)
    if size == settings.candidates:
        return torch.arange(size, device=device).expand(len(contexts.pixels), size)
    together = 1  # contexts; each has a window of its own on a CPU, and a GPU is kept busy
    if device.type != "cpu":
        together = max(1, at_once(contexts.pixels.shape[1], POOLED_AT_ONCE) // size)
    batches = zip(contexts.split(together), donors.split(together * size), strict=True)
    return torch.cat([_closest_donors(*batch, size, settings, device) for batch in batches])


def _closest_donors(
    contexts: ImageBatch, donors: ImageBatch, size: int, settings: Edit, device: torch.device
) -> Tensor:
    image, parts = (rows.repeat_interleave(size, dim=0) for rows in contexts.to(device))
    images, donor_parts = donors.to(device)
    masks = region_masks(settings.region, donor_parts, parts)
    differs = seam(image, images, masks.region, seam_width(images)).view(-1, size)
    return closest(differs, settings.seam_tolerance)[:, : settings.candidates].sort(dim=1).values


def seam_width(images: Tensor) -> int:
    """Return how many pixels around a region are compared in images (n, 3, H, W)."""
    return max(1, round(SEAM_WIDTH * images.shape[-1]))
