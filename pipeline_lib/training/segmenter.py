"""Training of the part segmenter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline_lib.config import GivenParts, OnnxParts, Parts, PartsBackend
from pipeline_lib.data.shards import read_shards, resolution_of
from pipeline_lib.data.tables import read_table
from pipeline_lib.imaging.transfer import batch_for, to_float
from pipeline_lib.networks.checkpoints import origin_of, save_weights
from pipeline_lib.networks.onnx_model import OnnxSegmenter
from pipeline_lib.networks.segmenter import Segmenter, UNetSegmenter
from pipeline_lib.networks.transformers_model import TransformersSegmenter
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.files import write_json
from pipeline_lib.runtime.revisions import key_of, stage
from pipeline_lib.training.loop import run
from pipeline_lib.training.measures import intersection_over_union
from pipeline_lib.training.supervised import SupervisedTask, Written, distort


@dataclass(frozen=True)
class Masked:
    """What a segmenter is trained on."""

    images: list[Path]  # shards of the training set
    masks: Path  # its table of part codes


@dataclass(frozen=True)
class HeldOut:
    """What a segmenter is evaluated on."""

    held_out: list[Path]  # shards
    held_out_masks: Path  # their table of part codes


@stage(revision=1)
def train_segmenter(
    *,
    masked: Masked,
    held_out: HeldOut,
    part_names: list[str],
    settings: PartsBackend,
    seed: int,
    made: Written,
    device: torch.device,
) -> None:
    """Train the segmenter on ground truth masks, or use the given one, and evaluate it on held-out images.

    The report has the intersection over union by part and their mean.

    Args:
        masked: what it is trained on.
        held_out: what it is evaluated on.
        part_names: names of the codes; empty if the dataset has no masks, in which case a given segmenter is not
            evaluated.
        settings: the config section.
        seed: seed of the run.
        made: what to write.
        device: where to train.
    """
    if isinstance(settings, Parts):
        key = key_of(train_segmenter, locals(), without=("held_out", "made", "device"))
        task = _task(masked, part_names, settings, seed, device)
        run(task, made.checkpoints / f"train_segmenter-{key}")
        segmenter, provenance = task.network, {"key": key, "kimg": settings.training.kimg}
    else:
        segmenter, provenance = _given_segmenter(settings, resolution_of(held_out.held_out[0]))
    segmenter = segmenter.to(device).requires_grad_(False).eval()
    save_weights(made.weights, segmenter, provenance)
    if not part_names:
        write_json(made.report, {"n": 0, "intersection_over_union": {}, "mean": None})
        return
    pixels, codes = _images_with_masks(held_out.held_out, held_out.held_out_masks)
    batches = pixels.split(batch_for(pixels.shape[-1], 128))
    found = torch.cat([segmenter(to_float(batch, device)).cpu() for batch in batches])
    write_json(made.report, intersection_over_union(found.numpy(), segmenter.parts, codes.numpy(), part_names))


class SegmenterTask(SupervisedTask):
    """Trains a segmenter on images and part codes, (n, H, W)."""

    weights: Tensor | None = None  # of the parts in the loss

    def vary(self, images: Tensor, random: torch.Generator) -> Tensor:
        return distort(images, random, blur=0.7, noise=0.1, color=0.2)

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.network.logits(images), targets.long(), self.weights)


def _task(masked: Masked, part_names: list[str], settings: Parts, seed: int, device: torch.device) -> SegmenterTask:
    pixels, codes = _images_with_masks(masked.images, masked.masks)
    torch.manual_seed(seeding.derive(seed, "segmenter", "weights"))
    segmenter = UNetSegmenter(part_names, settings.width)
    task = SegmenterTask(segmenter, pixels, codes, settings.training, seed, device, "train_segmenter")
    task.weights = part_weights(codes, len(part_names)).to(device)
    return task


def _given_segmenter(settings: GivenParts, resolution: int) -> tuple[Segmenter, dict[str, Any]]:
    if isinstance(settings, OnnxParts):
        options = settings.model_dump(include={"threshold", "side", "mean", "std"})
        segmenter = OnnxSegmenter.from_file(settings.path, settings.groups, resolution, **options)
    else:
        segmenter = TransformersSegmenter.from_folder(settings.path, settings.groups)
    return segmenter, origin_of(settings.path)


def part_weights(codes: Tensor, parts: int) -> Tensor:
    """Return a loss weight for each part, the inverse square root of its share of all pixels, 1 on average.

    Brows and eyes have a hundredth of the skin's pixels and are not learnt in a short training without weights.
    """
    share = torch.bincount(codes.flatten(), minlength=parts).float() / codes.numel()
    weight = share.clamp(min=1e-4).rsqrt()
    return weight / weight.mean()


def _images_with_masks(images: list[Path], masks: Path) -> tuple[Tensor, Tensor]:
    names, pixels = read_shards(images)
    table = read_table(masks, "masks").set_index("image_id")
    side = pixels.shape[1]
    codes = np.stack([np.frombuffer(table.at[name, "codes"], np.uint8).reshape(side, side) for name in names])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(codes)
