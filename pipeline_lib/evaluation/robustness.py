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

from pipeline_lib.audit.estimate import estimate_json
from pipeline_lib.config import Evaluate, Rebalance
from pipeline_lib.data.shards import iterate_batches, resolution_of
from pipeline_lib.evaluation.rates import gap_of_counts
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


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "unchanged": lambda images: images,
    "blur": blurred,
    "resampling": resampled,
    "jpeg": compressed,
}


@torch.no_grad()
@stage(revision=3)
def evaluate_robustness(
    *,
    images: list[Path],
    selector: Path,
    referee: Path,
    targets: Rebalance,
    settings: Evaluate,
    robustness: Path,
    device: torch.device,
    batch: int = 256,
) -> None:
    """Measure the gap of each GAN by both detectors in samples that are blurred, resampled or compressed.

    Args:
        images: all shards of all image sets, each in a folder named after its set.
        selector: weight file.
        referee: weight file.
        targets: the config section with attribute and groups.
        settings: the config section with the level of the intervals.
        robustness: JSON to write, {set: {change: {detector: the gap with its interval, null with a single target, and
            the share of images of which the detector says the same as of the unchanged one}}}.
        device: where to score.
        batch: images scored at a time.
    """
    detectors = {
        name: load_weights(path, Detector, device) for name, path in (("selector", selector), ("referee", referee))
    }
    shards: dict[str, list[Path]] = {}
    for path in images:
        shards.setdefault(path.parent.name, []).append(path)
    found: dict[str, dict[str, dict[str, object]]] = {}
    for name, paths in shards.items():
        says: dict[tuple[str, str], list[Tensor]] = {(change, by): [] for change in CHANGES for by in detectors}
        for _, pixels in iterate_batches(paths, batch_for(resolution_of(paths[0]), batch)):
            original = to_float(torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2), device)
            for change, apply in CHANGES.items():
                changed = apply(original)
                for by, detector in detectors.items():
                    says[change, by].append((detector.logits(changed) > 0).cpu())
        found[name] = {change: {} for change in CHANGES}
        for (change, by), chunks in says.items():
            gap = _gap_of(torch.cat(chunks), torch.cat(says["unchanged", by]), detectors[by], targets, settings)
            found[name][change][by] = gap.model_dump(mode="json")
    write_json(robustness, found)


def _gap_of(holds: Tensor, before: Tensor, detector: Detector, targets: Rebalance, settings: Evaluate) -> Robustness:
    """Return the gap by one detector's answers, bool (n, attributes), and how many are as before."""
    answers = dict(zip(detector.attributes, holds.numpy().T, strict=True))
    attribute, rules = targets.edited[0], targets.first_attribute().targets
    has = [answers[attribute][in_group(answers, rule.where)] for rule in rules]
    gap = gap_of_counts([(int(of.sum()), len(of)) for of in has], [rule.rate for rule in rules], settings.confidence)
    column = detector.index(attribute)
    same = float((holds[:, column] == before[:, column]).double().mean())
    return Robustness(**estimate_json(gap), same=same)
