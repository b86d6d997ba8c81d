"""Scoring of image sets by a detector."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from pipeline_lib.data.shards import count_images, iterate_batches, resolution_of
from pipeline_lib.data.tables import table_writer
from pipeline_lib.imaging.transfer import batch_for, to_float
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.runtime.files import digest_of_files
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage


@torch.no_grad()
@stage(revision=2)
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
        run: name of the run, stored in the files.
        scores: tables to write, one per set.
        device: where to score.
        batch: images scored at a time.
    """
    detector = load_weights(weights, Detector, device)
    metadata = {"run": run, "detector_digest": digest_of_files(weights)}
    for name, path in zip(sets, scores, strict=True):
        shards = [shard for shard in images if shard.parent.name == name]
        with (
            table_writer(path, "scores", metadata, ["image_id", *detector.attributes]) as table,
            Progress(f"score_attributes ({name})", count_images(shards)) as progress,
        ):
            for names, pixels in iterate_batches(shards, batch_for(resolution_of(shards[0]), batch)):
                probabilities = detector(to_float(torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2), device)).cpu()
                rows = pd.DataFrame(probabilities.numpy(), columns=detector.attributes)
                table.add(rows.assign(image_id=names))
                progress.advance(len(names))
