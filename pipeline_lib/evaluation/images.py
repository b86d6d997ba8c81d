"""Rates, gaps, agreement of the detectors and image quality of every image set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline_lib.config import Detectors, Evaluate, Rebalance
from pipeline_lib.evaluation.bias import measure_bias, read_answers
from pipeline_lib.evaluation.features import extract_features
from pipeline_lib.evaluation.frechet import frechet_distance, kernel_distance
from pipeline_lib.evaluation.prdc import density_and_coverage
from pipeline_lib.evaluation.rates import truth_counts
from pipeline_lib.evaluation.results import ImageSets, Measured
from pipeline_lib.networks.perceptual import load_perceptual
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.revisions import stage


@dataclass(frozen=True)
class Files:
    """Files of the image sets. Those of several sets have the name of their set, which shards have as a folder.

    Attributes:
        images: all shards of all image sets.
        selector: the selector's scores, a table for each image set.
        referee: the referee's scores, likewise.
        held_out: shards of the held-out images.
        held_out_truth: their labels.
        held_out_referee: the referee's scores of them.
        truth: labels of the original dataset.
        rebalanced_truth: labels of the rebalanced dataset, by `evaluate_counterfactuals`; None if they are unknown.
        checked: JSON of it, which says whether they count; likewise.
    """

    images: list[Path]
    selector: list[Path]
    referee: list[Path]
    held_out: list[Path]
    held_out_truth: Path
    held_out_referee: Path
    truth: Path
    rebalanced_truth: Path | None
    checked: Path | None


@stage(revision=1)
def evaluate_images(
    *,
    files: Files,
    targets: Rebalance,
    detectors: Detectors,
    settings: Evaluate,
    seed: int,
    cache: Path,
    image_sets: Path,
    device: torch.device,
) -> None:
    """Measure rates and gaps of every image set by each source of labels, the detectors' agreement, and image quality.

    The sources of labels are ground truth (for the original dataset, and for the rebalanced one where the truth of its
    edits is known), the selector, the referee, and the referee corrected for its error on held-out images. Each source
    also determines the groups. Images of which a label is unknown do not count.

    Args:
        files: what is measured.
        targets: the config section with groups and attributes.
        detectors: the config section with the required agreement.
        settings: the config section of the evaluation.
        seed: seed of the run.
        cache: folder of cached features, which are reused for unchanged sets.
        image_sets: JSON to write.
        device: where to compute.

    Raises:
        DataError: the detectors scored different images, or the referee is no better than chance in a group.
    """
    answers = {("dataset", "truth"): read_answers(files.truth, "labels")}
    if files.rebalanced_truth and truth_counts(files.checked):
        answers["dataset_rebalanced", "truth"] = read_answers(files.rebalanced_truth, "labels")
    by_selector = {path.stem: path for path in files.selector}
    for path in files.referee:
        first, second = read_answers(by_selector[path.stem], "scores"), read_answers(path, "scores")
        if not first.index.equals(second.index):
            raise DataError(f"{path}: scores of other images than {by_selector[path.stem]}; run the workflow again")
        answers[path.stem, "selector"], answers[path.stem, "referee"] = first, second
    held_out = read_answers(files.held_out_truth, "labels"), read_answers(files.held_out_referee, "scores")
    shards: dict[str, list[Path]] = {}
    for path in files.images:
        shards.setdefault(path.parent.name, []).append(path)
    ImageSets(
        **measure_bias(answers, held_out, targets, detectors.least_agreement, settings, seed),
        quality=measure_quality(shards, files.held_out, settings.images, seed, cache, device),
    ).write(image_sets)


def measure_quality(
    sets: dict[str, Sequence[Path]],
    held_out: Sequence[Path],
    limit: int | None,
    seed: int,
    cache: Path | None,
    device: torch.device,
) -> dict[str, dict[str, Measured]]:
    """Return the measures of image quality of image sets with respect to held-out real images, by set and name.

    Args:
        sets: shards of each image set.
        held_out: shards of the held-out images.
        limit: number of images of each set, from the first on; None for all.
        seed: seed of the run, for the kernel distance's subsets.
        cache: folder of cached features; None for none.
        device: where to compute.

    Raises:
        DataError: a shard is missing or damaged, or there are too few images.
    """
    extractor = load_perceptual("alex")

    def features_of(shards: Sequence[Path]) -> np.ndarray:
        return extract_features(shards, extractor, device, limit=limit, cache=cache)

    reference, found = features_of(held_out), {}
    for name, shards in sets.items():
        features = features_of(shards)
        values = density_and_coverage(reference, features, device=device)._asdict() | {
            "frechet_distance": frechet_distance(reference, features),
            "kernel_distance": kernel_distance(reference, features, seed),
        }
        how = {"extractor": extractor.name, "reference": "held-out real images"}
        numbers = {"n": len(features), "n_reference": len(reference)}
        found[name] = {metric: Measured(value=value, **how, **numbers) for metric, value in values.items()}
    return found
