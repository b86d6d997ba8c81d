"""Several examples of a part, each of which gives the same image another look (paper A.2.1, Fig. 10)."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config import Edit, Evaluate, Studies
from pipeline_lib.data.part_masks import parts_of
from pipeline_lib.editing.donors import ImageSet
from pipeline_lib.editing.finish import finish
from pipeline_lib.imaging.collages import make_collage, region_masks
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.imaging.transfer import as_pixels
from pipeline_lib.networks.inversion import open_inverter
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.rows import mean_row, write_arrays, write_rows

STUDY = "multimodal"
COLLAGES, EDITS, FINISHED = METHODS = "collages", "composition", "composition, finished"
METRICS = "difference of two results, inside the region", "difference of two results, outside of it"
SHOWN = 3  # images in the figure


@torch.no_grad()
@stage(revision=1)
def study_multimodal(
    *,
    images: list[Path],
    parts: Path,
    encoder: Path,
    generator: Path,
    precision: Path,
    edit: Edit,
    settings: Studies,
    evaluate: Evaluate,
    run: str,
    seed: int,
    table: Path,
    pictures: Path,
    device: torch.device,
) -> None:
    """Edit each image with several donors, and measure how much its results differ in the region and elsewhere.

    The region of a pair is what either donor covers. In collages nothing else differs. The edits are finished as
    `edit.finish` says.

    Args:
        images: shards of real images.
        parts: their table of parts.
        encoder: weight file.
        generator: weight file.
        precision: report of the encoder, with the precision of the inversion.
        edit: the config section with region and finish.
        settings: the config section.
        evaluate: the config section with the confidence level.
        run: name of the run, stored in the file.
        seed: seed of the run.
        table: table to write, with rows for collages and for what is made of them.
        pictures: NPZ to write, with the first images for the figure.
        device: where to compute.

    Raises:
        DataError: fewer images with the part than asked for.
    """
    how = settings.multimodal
    image_set = ImageSet(images, parts, parts_of(edit.region))
    if len(image_set.with_part) < max(how.images, how.donors + 1):
        raise DataError(
            f"`studies.multimodal`: {how.images} images with {how.donors} donors each, but only "
            f"{len(image_set.with_part)} images have the part; use fewer"
        )
    chosen = seeding.numpy_generator(seed, STUDY).choice(image_set.with_part, how.images, replace=False)
    inverter = open_inverter(encoder, generator, device, edit.precision, precision, compile=False)
    measured: dict[str, list[Tensor]] = {name: [] for name in METHODS}
    shown: list[np.ndarray] = []
    with Progress(f"study_{STUDY}", how.images) as progress:
        for position in chosen:
            drawn = image_set.donors(int(position), how.donors, seed, STUDY)
            image, own_parts = image_set.look(np.full(how.donors, position)).to(device)
            donor, donor_parts = image_set.look(drawn).to(device)
            masks = region_masks(edit.region, donor_parts, own_parts)
            collages = make_collage(image, donor, masks.pasted)
            made = {COLLAGES: collages, EDITS: inverter(collages, masks.known)}
            made[FINISHED] = finish(image, donor, made[EDITS], masks, edit.finish)
            for name, results in made.items():
                measured[name].append(differences(results, masks.region).cpu())
            if len(shown) < len(METHODS) * SHOWN:
                shown += [as_pixels(torch.cat([image[:1], row])).cpu().numpy() for row in made.values()]
            progress.advance(1)
    rows = [
        mean_row(STUDY, name, metric, torch.stack(values)[:, column].numpy(), evaluate.confidence)
        for name, values in measured.items()
        for column, metric in enumerate(METRICS)
    ]
    write_rows(table, rows, how, run, [encoder, generator], inverter.precision)
    columns = np.array(["image", *(f"donor {number}" for number in range(1, how.donors + 1))])
    labels = np.array(METHODS * (len(shown) // len(METHODS)))
    write_arrays(pictures, columns=columns, parts=labels, pixels=np.stack(shown))


def differences(results: Tensor, region: Tensor) -> Tensor:
    """Return the mean L1 of pairs of n results in the regions of both and outside, (2,), given (n, ., H, W)."""
    first, second = map(list, zip(*combinations(range(len(results)), 2), strict=True))
    either = torch.maximum(region[first], region[second])
    inside, outside = (masked_l1(results[first], results[second], place).mean() for place in (either, 1 - either))
    return torch.stack([inside, outside])
