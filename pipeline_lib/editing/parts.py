"""Segmentation of images into parts, stored as one row per part with a packed mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.ndimage
import torch

from pipeline_lib.config import BoxRegion
from pipeline_lib.data.part_masks import BOX
from pipeline_lib.data.shards import count_images, iterate_batches, resolution_of
from pipeline_lib.data.tables import table_writer
from pipeline_lib.imaging.masks import box_mask
from pipeline_lib.imaging.transfer import batch_for, to_float
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.segmenter import Segmenter
from pipeline_lib.runtime.files import digest_of_files
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage

STRAY = 0.1  # of a part's largest connected piece: a smaller one is a mistake of the segmenter, and is left out
TOUCHING = np.ones((3, 3), int)  # pixels that touch at a corner are connected


@torch.no_grad()
@stage(revision=2)
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
        for names, pixels in iterate_batches(images, batch_for(resolution_of(images[0]), batch)):
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
    """Return a table row for each part but the background (code 0) in the part codes (H, W) of an image.

    Stray pieces of a part are left out, because a swap would change the image there too.
    """
    rows: list[dict[str, object]] = []
    for code in np.unique(codes):
        if code == 0:
            continue
        mask = _without_stray_pieces(codes == code)
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


def _without_stray_pieces(mask: np.ndarray) -> np.ndarray:
    """Return a part's mask, bool (H, W), without the pieces that are small beside its largest (`STRAY`)."""
    pieces, count = scipy.ndimage.label(mask, TOUCHING)
    if count == 1:
        return mask
    sizes = np.bincount(pieces.flat)
    sizes[0] = 0  # what is not the part
    return (sizes >= STRAY * sizes.max())[pieces] & mask
