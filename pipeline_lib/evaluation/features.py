"""Feature extraction from image sets, streamed from shards."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline_lib.data.shards import count_images, iterate_batches, resolution_of
from pipeline_lib.imaging.transfer import batch_for, to_float
from pipeline_lib.networks.perceptual import Perceptual
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import atomic_path, digest_of, digest_of_files
from pipeline_lib.runtime.progress import Progress

logger = logging.getLogger(__name__)

REVISION = 1  # of features; raise it with a change of what they are, or those of earlier runs are read from the cache


def extract_features(
    shards: Sequence[str | Path],
    extractor: Perceptual,
    device: str | torch.device = "cpu",
    batch: int = 64,
    limit: int | None = None,
    cache: Path | None = None,
) -> np.ndarray:
    """Return the extractor's features of every image, float32 (n, d), in the order of the shards.

    With a cache they are computed only once for identical images, whatever the image set.

    Args:
        shards: image shards.
        extractor: the network; it is moved to `device`.
        device: where to compute.
        batch: images at a time.
        limit: number of images, from the first on; None for all.
        cache: folder of cached features; None disables the cache.

    Raises:
        DataError: a shard is missing or damaged, or there are no images.
    """
    count = min(count_images(shards), limit or sys.maxsize)
    if not count:
        raise DataError(f"{', '.join(map(str, shards))}: no images in these shards; run the rule that makes them again")
    kept = None
    if cache is not None:
        made_of = [REVISION, digest_of_files(*shards), extractor.name, count, torch.device(device).type]
        kept = cache / f"{digest_of(made_of)}.npy"
        if kept.exists():
            logger.info("features of %s are read from %s", Path(shards[0]).parent, kept)
            return np.load(kept, mmap_mode="c")
    extractor.to(device)
    found = []
    with Progress("features", count) as progress, torch.inference_mode():
        for _, images in iterate_batches(shards, batch_for(resolution_of(shards[0]), batch)):
            images = images[: count - progress.done]
            found.append(extractor.features(to_float(torch.tensor(images).permute(0, 3, 1, 2), device)).cpu())
            progress.advance(len(images))
            if progress.done == count:
                break
    features = torch.cat(found).numpy()
    if kept is not None:
        with atomic_path(kept) as beside, beside.open("wb") as file:
            np.save(file, features)
    return features


@torch.inference_mode()
def features_of(images: np.ndarray, extractor: Perceptual, device: str | torch.device, batch: int = 64) -> np.ndarray:
    """Return the extractor's features, float32 (n, d), of uint8 images (n, H, W, 3) in memory."""
    chunks = torch.from_numpy(images).permute(0, 3, 1, 2).split(batch_for(images.shape[1], batch))
    return torch.cat([extractor.to(device).features(to_float(chunk, device)).cpu() for chunk in chunks]).numpy()
