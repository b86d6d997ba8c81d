"""Features of whole image sets, streamed from shards."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline_lib.data.shards import count_images, iterate_batches
from pipeline_lib.networks.perceptual import Perceptual
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.training.batches import to_float


def extract_features(
    shards: Sequence[str | Path],
    extractor: Perceptual,
    device: str | torch.device = "cpu",
    batch: int = 64,
    limit: int | None = None,
) -> np.ndarray:
    """Return the extractor's features of every image, float32 (n, d), in the order of the shards.

    Args:
        shards: image shards.
        extractor: the network; it is moved to `device`.
        device: where to compute.
        batch: images at a time.
        limit: number of images taken, the first ones; None for all.

    Raises:
        DataError: a shard is missing or damaged, or none holds an image.
    """
    count = min(count_images(shards), limit or sys.maxsize)
    if not count:
        raise DataError(f"{', '.join(map(str, shards))}: no image in these shards; run the rule that makes them again")
    extractor.to(device)
    found = []
    with Progress("features", count) as progress, torch.inference_mode():
        for _, images in iterate_batches(shards, batch):
            images = images[: count - progress.done]
            found.append(extractor.features(to_float(torch.tensor(images).permute(0, 3, 1, 2), device)).cpu())
            progress.advance(len(images))
            if progress.done == count:
                break
    return torch.cat(found).numpy()
