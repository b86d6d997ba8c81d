"""An encoder fine-tuned on the image that is to be edited (paper A.2.4, Fig. 23)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config import Edit, Encoder, Evaluate, Studies
from pipeline_lib.data.part_masks import parts_of
from pipeline_lib.editing.donors import ImageSet
from pipeline_lib.imaging.collages import Masks, make_collage, region_masks
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.imaging.transfer import as_pixels
from pipeline_lib.networks.distances import open_distance
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.rows import mean_row, over, write_arrays, write_rows
from pipeline_lib.training.adapt import adapt_encoder

STUDY = "adaptation"
TRAINED, ADAPTED = METHODS = "encoder as trained", "encoder fine-tuned on the image"
METRICS = "L1 of the image", "perceptual distance", "L1 of an edit outside of the region", "L1 of an edit to the donor"
SHOWN = 6  # images in the figure


@stage(revision=1)
def study_adaptation(
    *,
    images: list[Path],
    parts: Path,
    encoder: Path,
    generator: Path,
    like: Encoder,
    edit: Edit,
    settings: Studies,
    evaluate: Evaluate,
    run: str,
    seed: int,
    table: Path,
    pictures: Path,
    device: torch.device,
) -> None:
    """Reconstruct and edit real images by the encoder before and after it was fine-tuned on each of them.

    Args:
        images: shards of real images, which the encoder has not seen.
        parts: their table of parts.
        encoder: weight file.
        generator: weight file.
        like: config section of the encoder, with the masks.
        edit: the config section with the region of the edit.
        settings: the config section.
        evaluate: the config section with the perceptual distance and the confidence level.
        run: name of the run, stored in the file.
        seed: seed of the run.
        table: table to write, with rows before and after, and how much larger the errors before are.
        pictures: NPZ to write, with the first images for the figure.
        device: where to compute.

    Raises:
        DataError: fewer images with the part than asked for.
    """
    how = settings.adaptation
    image_set = ImageSet(images, parts, parts_of(edit.region))
    if len(image_set.with_part) < how.images:
        raise DataError(
            f"`studies.adaptation.images`: {how.images}, but only {len(image_set.with_part)} images have the part; "
            "use fewer"
        )
    chosen = seeding.numpy_generator(seed, STUDY).choice(image_set.with_part, how.images, replace=False)
    inverter = Inverter(encoder, generator, device, compile=False)
    as_trained = {name: value.clone() for name, value in inverter.encoder.state_dict().items()}
    distance = open_distance(evaluate.distance).to(device)
    measured: dict[str, list[Tensor]] = {name: [] for name in METHODS}
    shown: list[np.ndarray] = []
    with Progress(f"study_{STUDY}", how.images) as progress:
        for position, other in zip(chosen, np.roll(chosen, 1), strict=True):
            image, own_parts = image_set.look(np.array([position])).to(device)
            donor, donor_parts = image_set.look(np.array([other])).to(device)
            masks = region_masks(edit.region, donor_parts, own_parts)
            row = [image, make_collage(image, donor, masks.pasted)]
            for name in METHODS:
                if name == ADAPTED:
                    adapt_encoder(inverter, image, distance, steps=how.steps, masks=like.mask, seed=seed)
                rebuilt, edited, figures = _measure(inverter, distance, image, donor, masks)
                measured[name].append(figures.cpu())
                row += [rebuilt, edited]
            inverter.encoder.load_state_dict(as_trained)
            if len(shown) < SHOWN:
                shown.append(as_pixels(torch.cat(row)).cpu().numpy())
            progress.advance(1)
    values = {name: torch.stack(rows).numpy() for name, rows in measured.items()}
    rows = [
        mean_row(STUDY, name, metric, values[name][:, column], evaluate.confidence)
        for name in METHODS
        for column, metric in enumerate(METRICS)
    ]
    rows += [
        mean_row(STUDY, over(*METHODS), metric, (values[TRAINED] - values[ADAPTED])[:, column], evaluate.confidence)
        for column, metric in enumerate(METRICS[:3])
    ]
    write_rows(table, rows, how, run, [encoder, generator], "float32")
    columns = ["image", "collage", "as trained", "its edit", "fine-tuned", "its edit"]
    write_arrays(pictures, columns=np.array(columns), pixels=np.stack(shown))


@torch.no_grad()
def _measure(
    inverter: Inverter, distance: torch.nn.Module, image: Tensor, donor: Tensor, masks: Masks
) -> tuple[Tensor, Tensor, Tensor]:
    """Return an image's reconstruction, its edit, both (1, 3, H, W), and the figures of `METRICS`, (4,)."""
    rebuilt = inverter(image, torch.ones_like(masks.pasted))
    edited = inverter(make_collage(image, donor, masks.pasted), masks.known)
    figures = (
        masked_l1(image, rebuilt, torch.ones_like(masks.pasted)),
        distance(image, rebuilt),
        masked_l1(image, edited, 1 - masks.region),
        masked_l1(donor, edited, masks.pasted),
    )
    return rebuilt, edited, torch.cat(figures)
