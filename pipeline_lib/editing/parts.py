"""Segmentation of images into parts, stored as one row per part with a packed mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline_lib.config import BoxRegion
from pipeline_lib.data.shards import count_images, iterate_batches
from pipeline_lib.data.tables import read_table, table_writer
from pipeline_lib.imaging.masks import box_mask
from pipeline_lib.imaging.transfer import to_float
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.segmenter import Segmenter
from pipeline_lib.runtime.files import digest_of_files
from pipeline_lib.runtime.progress import Progress

BOX = "box"  # the only part of images without a segmenter


@torch.no_grad()
def extract_parts(
    *,
    images: list[Path],
    weights: list[Path],
    box: BoxRegion | None,
    run: str,
    parts: Path,
    device: torch.device,
    batch: int = 128,
) -> None:
    """Find the parts of every image of a set.

    Args:
        images: shards of the set.
        weights: the segmenter's weight file; if empty, the only part of every image is the box.
        box: the config's region, used without a segmenter.
        run: name of the run, stored in the file.
        parts: table to write.
        device: where to segment.
        batch: images segmented at a time.
    """
    segmenter = load_weights(weights[0], Segmenter, device) if weights else _BoxSegmenter(box)
    metadata = {"run": run, "segmenter_digest": digest_of_files(*weights)}
    with (
        table_writer(parts, "parts", metadata) as table,
        Progress("extract_parts", count_images(images)) as progress,
    ):
        for names, pixels in iterate_batches(images, batch):
            chunk = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2)
            codes = segmenter(to_float(chunk, device)).cpu().numpy()
            for name, image_codes in zip(names, codes, strict=True):
                table.add(part_rows(name, image_codes, segmenter.parts))
            progress.advance(len(chunk))


class _BoxSegmenter:
    """Segments the same box in every image."""

    parts = ("background", BOX)

    def __init__(self, region: BoxRegion):
        self._region = region

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return box_mask(self._region, images.shape[-1])[0].to(torch.uint8).expand(len(images), -1, -1)


def part_rows(image_id: str, codes: np.ndarray, part_names: Sequence[str]) -> list[dict[str, object]]:
    """Return a table row for each part but the background (code 0) in the part codes (H, W) of an image."""
    rows: list[dict[str, object]] = []
    for code in np.unique(codes):
        if code == 0:
            continue
        mask = codes == code
        lines, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        rows.append(
            {
                "image_id": image_id,
                "part": part_names[code],
                "pixels": int(mask.sum()),
                "top": lines[0],
                "bottom": lines[-1] + 1,
                "left": columns[0],
                "right": columns[-1] + 1,
                "mask": np.packbits(mask).tobytes(),
            }
        )
    return rows


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

    def row(self, image_id: str) -> int:
        """Return the row of `packed` with an image's mask; the last row, which is empty, if the image has no part."""
        return self._row.get(image_id, len(self._row))

    def __getitem__(self, image_id: str) -> np.ndarray:
        bits = np.unpackbits(self.packed[self._row[image_id]], count=self._resolution**2)
        return bits.reshape(self._resolution, self._resolution).astype(bool)

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)


def unpack_masks(packed: torch.Tensor, resolution: int) -> torch.Tensor:
    """Turn rows of packed bits, uint8 (n, bytes), into masks (n, 1, resolution, resolution) of {0, 1}."""
    places = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)  # the first pixel is the highest bit
    bits = (packed[:, :, None] >> places) & 1
    return bits.flatten(1)[:, : resolution**2].reshape(-1, 1, resolution, resolution).float()
