"""A detector's probabilities for every image of a set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline_lib.data.shards import count_images, iterate_batches
from pipeline_lib.data.tables import write_table
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.runtime.files import digest_of_files
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.training.batches import to_float


@torch.no_grad()
def score_attributes(
    *,
    images: list[Path],
    sets: list[str],
    weights: Path,
    run: str,
    scores: list[Path],
    device: torch.device,
    batch: int = 256,
) -> None:
    """Score every image of several sets.

    Args:
        images: all shards of all sets, each in a folder named after its set.
        sets: names of the sets.
        weights: the detector's weight file.
        run: name of the run, kept in the files.
        scores: tables to make, one a set.
        device: where to score.
        batch: images scored at a time.
    """
    detector = load_weights(weights, Detector, device)
    metadata = {"run": run, "detector_digest": digest_of_files(weights)}
    for name, table in zip(sets, scores, strict=True):
        rows = _score_set(name, [path for path in images if path.parent.name == name], detector, device, batch)
        write_table(table, "scores", rows, metadata)


def _score_set(name: str, shards: list[Path], detector: Detector, device: torch.device, batch: int) -> pd.DataFrame:
    names: list[str] = []
    probabilities = []
    with Progress(f"score_attributes ({name})", count_images(shards)) as progress:
        for batch_names, pixels in iterate_batches(shards, batch):
            chunk = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2)
            probabilities.append(detector(to_float(chunk, device)).cpu().numpy())
            names += batch_names
            progress.advance(len(chunk))
    rows = pd.DataFrame(np.concatenate(probabilities), columns=detector.attributes)
    rows.insert(0, "image_id", names)
    return rows
