"""Gaps of GANs in slightly changed samples: a GAN that learnt from a detector may have learnt to deceive it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipeline_lib.audit.estimate import Estimate, estimate_json, wilson_rate
from pipeline_lib.config import Evaluate, Rebalance
from pipeline_lib.data.shards import iterate_batches, resolution_of
from pipeline_lib.data.tables import read_table
from pipeline_lib.evaluation.rates import gap, group_gap
from pipeline_lib.evaluation.results import Robustness
from pipeline_lib.imaging.blur import gaussian_blur
from pipeline_lib.imaging.transfer import as_pixels, batch_for, to_float
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.rebalance.groups import in_group
from pipeline_lib.runtime.files import write_json
from pipeline_lib.runtime.revisions import stage

BLUR = 1 / 64  # sigma as a share of the image's side
SMALLER = 0.75  # side of the images in between, as a share
JPEG_QUALITY = 75


def blurred(images: Tensor) -> Tensor:
    """Blur images (n, 3, H, W) slightly."""
    return gaussian_blur(images, BLUR * images.shape[-1])


def resampled(images: Tensor) -> Tensor:
    """Reduce images (n, 3, H, W) in size and enlarge them again."""
    smaller = F.interpolate(images, scale_factor=SMALLER, mode="bilinear", antialias=True)
    return F.interpolate(smaller, images.shape[-2:], mode="bilinear")


def compressed(images: Tensor) -> Tensor:
    """Pass images (n, 3, H, W) in [-1, 1] through JPEG."""
    passed = [_jpeg(pixels) for pixels in as_pixels(images).cpu().numpy()]
    return to_float(torch.from_numpy(np.stack(passed)).permute(0, 3, 1, 2), images.device)


def _jpeg(pixels: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY)
    return np.asarray(Image.open(file))


UNCHANGED = "unchanged"
CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "blur": blurred,
    "resampling": resampled,
    "jpeg": compressed,
}


@torch.no_grad()
@stage(revision=2)
def evaluate_robustness(
    *,
    images: list[Path],
    sets: list[str],
    selector: Path,
    referee: Path,
    selector_scores: list[Path],
    referee_scores: list[Path],
    targets: Rebalance,
    settings: Evaluate,
    robustness: Path,
    device: torch.device,
    batch: int = 256,
) -> None:
    """Measure the gap of each GAN by both detectors in samples that are blurred, resampled or compressed.

    Args:
        images: all shards of all image sets, each in a folder named after its set.
        sets: names of the sets.
        selector: weight file.
        referee: weight file.
        selector_scores: the selector's scores of the samples as they are, a table for each image set, under its name.
        referee_scores: the referee's, likewise.
        targets: the config section with attribute and groups.
        settings: the config section with the level of the intervals.
        robustness: JSON to write, {set: {change: {judge: the gap with its interval, null with a single target, and the
            share of images of which the judge says the same as of the unchanged one}}}.
        device: where to score.
        batch: images scored at a time.
    """
    judges = {
        name: load_weights(path, Detector, device) for name, path in (("selector", selector), ("referee", referee))
    }
    scores = {"selector": selector_scores, "referee": referee_scores}
    found = {}
    for name in sets:
        shards = [shard for shard in images if shard.parent.name == name]
        says: dict[tuple[str, str], list[Tensor]] = {(change, judge): [] for change in CHANGES for judge in judges}
        seen: list[str] = []
        for names, pixels in iterate_batches(shards, batch_for(resolution_of(shards[0]), batch)):
            seen += names
            original = to_float(torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2), device)
            for change, apply in CHANGES.items():
                changed = apply(original)
                for judge, detector in judges.items():
                    says[change, judge].append((detector.logits(changed) > 0).cpu())
        found[name] = {UNCHANGED: {}} | {change: {} for change in CHANGES}
        for judge, detector in judges.items():
            (path,) = (path for path in scores[judge] if path.stem == name)
            before = (read_table(path, "scores").set_index("image_id").loc[seen, detector.attributes] > 0.5).to_numpy()
            holds = {UNCHANGED: before} | {change: torch.cat(says[change, judge]).numpy() for change in CHANGES}
            for change, after in holds.items():
                found[name][change][judge] = _gap_of(after, before, detector, targets, settings)
    write_json(
        robustness,
        {
            name: {
                change: {judge: gap.model_dump(mode="json") for judge, gap in judges.items()}
                for change, judges in changes.items()
            }
            for name, changes in found.items()
        },
    )


def _gap_of(
    holds: np.ndarray, before: np.ndarray, detector: Detector, targets: Rebalance, settings: Evaluate
) -> Robustness:
    """Return the gap of one detector's opinions, bool (n, attributes), and how many are as before."""
    named = {attribute: holds[:, column] for column, attribute in enumerate(detector.attributes)}
    attribute = targets.edited[0]
    rules = targets.first_attribute().targets
    has = [named[attribute][in_group(named, rule.where)] for rule in rules]

    def gap_of(one: int, other: int, level: float) -> Estimate:
        return gap(*(wilson_rate(int(has[number].sum()), len(has[number]), level) for number in (one, other)))

    found = group_gap(gap_of, [rule.rate for rule in rules], settings.confidence)
    column = detector.index(attribute)
    return Robustness(**estimate_json(found), same=float((holds[:, column] == before[:, column]).mean()))
