"""Image quality of a set with respect to held-out real images, as rows of the quality table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline_lib.config import Evaluate
from pipeline_lib.data.tables import SCHEMAS, write_table
from pipeline_lib.evaluation.features import extract_features
from pipeline_lib.evaluation.frechet import frechet_distance, kernel_distance
from pipeline_lib.evaluation.prdc import density_and_coverage
from pipeline_lib.networks.perceptual import Perceptual, load_perceptual
from pipeline_lib.runtime.files import digest_of
from pipeline_lib.runtime.revisions import stage


def measure_quality(
    stage: str,
    shards: Sequence[str | Path],
    reference_features: np.ndarray,
    reference_name: str,
    extractor: Perceptual,
    device: str | torch.device = "cpu",
    seed: int = 0,
    limit: int | None = None,
    cache: Path | None = None,
) -> pd.DataFrame:
    """Return the rows of one image set in a table of kind `quality`, one per metric.

    Args:
        stage: name of the image set.
        shards: its images.
        reference_features: (m, d), by `extract_features` of held-out real images with the same extractor.
        reference_name: description of these images.
        extractor: the feature extractor, whose name is stored in every row.
        device: where to compute.
        seed: seed of the run, for the kernel distance's subsets.
        limit: number of images, from the first on; None for all.
        cache: folder of cached features.

    Raises:
        DataError: a shard is missing or damaged, or there are too few images.
    """
    features = extract_features(shards, extractor, device, limit=limit, cache=cache)
    density, coverage = density_and_coverage(reference_features, features, device=device)
    values = {
        "frechet_distance": frechet_distance(reference_features, features),
        "kernel_distance": kernel_distance(reference_features, features, seed),
        "density": density,
        "coverage": coverage,
    }
    rows = pd.DataFrame({"metric": list(values), "value": list(values.values())}).assign(
        stage=stage,
        extractor=extractor.name,
        reference=reference_name,
        n=len(features),
        n_reference=len(reference_features),
    )
    return rows[SCHEMAS["quality"].names]


@stage(revision=1)
def evaluate_quality(
    *,
    held_out: list[Path],
    images: list[Path],
    settings: Evaluate,
    run: str,
    seed: int,
    cache: Path,
    quality: Path,
    device: torch.device,
) -> None:
    """Measure the image quality of every image set with respect to held-out real images.

    Args:
        held_out: shards of the held-out set.
        images: all shards of all image sets, each under a folder named after its set.
        settings: the config section.
        run: name of the run, stored in the file.
        seed: seed of the run.
        cache: folder of cached features, which are reused for unchanged sets.
        quality: table to write.
        device: where to compute.
    """
    extractor = load_perceptual("alex")
    reference = extract_features(held_out, extractor, device, limit=settings.images, cache=cache)
    tables = [
        measure_quality(
            stage,
            [path for path in images if path.parent.name == stage],
            reference,
            "held-out real images",
            extractor,
            device,
            seed,
            settings.images,
            cache,
        )
        for stage in dict.fromkeys(path.parent.name for path in images)
    ]
    digest = digest_of(settings.model_dump())
    write_table(quality, "quality", pd.concat(tables, ignore_index=True), {"run": run, "config_digest": digest})
