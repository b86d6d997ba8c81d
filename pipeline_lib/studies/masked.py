"""Real images with random masks of known pixels, as encoders see generated ones in training (paper 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from pipeline_lib.config import MaskSampling
from pipeline_lib.data.shards import read_shards
from pipeline_lib.imaging.masks import random_masks
from pipeline_lib.imaging.transfer import at_once, to_float
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.progress import Progress


def masked_images(
    shards: list[Path], count: int, settings: MaskSampling, key: str, seed: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the first images with a mask each, (n, 3, H, W) in [-1, 1] and (n, 1, H, W) of {0, 1}, in batches.

    An image's mask depends on the seed and on its place alone.

    Args:
        shards: image shards.
        count: number of images.
        settings: how masks are drawn.
        key: config key of the number, for the message.
        seed: seed of the run.
        device: where they are wanted.

    Raises:
        DataError: there are fewer images.
    """
    _, pixels = read_shards(shards)
    if len(pixels) < count:
        raise DataError(f"`{key}`: {count}, but there are only {len(pixels)} images in {shards[0].parent}; use fewer")
    masks = random_masks(settings, count, pixels.shape[1], seeding.torch_generator(seed, "masks of studies"))
    with Progress(key, count) as progress:
        together = at_once(pixels.shape[1])
        for start in range(0, count, together):
            rows = slice(start, min(start + together, count))
            images = to_float(torch.from_numpy(pixels[rows]).permute(0, 3, 1, 2), device)
            yield images, masks[rows].to(device)
            progress.advance(len(images))
