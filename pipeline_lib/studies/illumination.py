"""What the rest of an image does when the light on one half of it is changed (paper A.2.4, Fig. 22)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config import Evaluate, PrecisionChoice, Studies
from pipeline_lib.data.shards import read_shards
from pipeline_lib.imaging.transfer import as_pixels, at_once, to_float
from pipeline_lib.networks.inversion import open_inverter
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.rows import mean_row, write_arrays, write_rows

STUDY = "illumination"
DARKER = 0.6  # factor of the light on the left half
METRICS = "share of the change, lit half", "share of the change, other half"
MASKED, WHOLE = "composition, other half unknown", "composition"
SHOWN = 6  # images in the figure


@torch.no_grad()
@stage(revision=1)
def study_illumination(
    *,
    images: list[Path],
    encoder: Path,
    generator: Path,
    precision: Path,
    inversion: PrecisionChoice,
    settings: Studies,
    evaluate: Evaluate,
    run: str,
    seed: int,
    table: Path,
    pictures: Path,
    device: torch.device,
) -> None:
    """Darken the left half of real images, and measure how much of the change each half of the result shows.

    A result is compared with the reconstruction of the image itself. A share of 1 in both halves means that the
    whole image has become darker, and of 1 in the left and 0 in the right half that the result is as the collage.

    Args:
        images: shards of real images.
        encoder: weight file.
        generator: weight file.
        precision: report of the encoder, with the precision of the inversion.
        inversion: precision in the config.
        settings: the config section.
        evaluate: the config section with the confidence level.
        run: name of the run, stored in the file.
        seed: seed of the run.
        table: table to write, with rows for results of the whole collage, and of its left half alone.
        pictures: NPZ to write, with the first images for the figure.
        device: where to compute.

    Raises:
        DataError: fewer images than asked for.
    """
    how = settings.illumination
    _, pixels = read_shards(images)
    if len(pixels) < how.images:
        raise DataError(f"`studies.illumination.images`: {how.images}, but there are only {len(pixels)}; use fewer")
    chosen = np.sort(seeding.numpy_generator(seed, STUDY).choice(len(pixels), how.images, replace=False))
    inverter = open_inverter(encoder, generator, device, inversion, precision, compile=False)
    measured: dict[str, list[Tensor]] = {WHOLE: [], MASKED: []}
    shown: list[np.ndarray] = []
    with Progress(f"study_{STUDY}", how.images) as progress:
        for rows in np.array_split(chosen, -(-how.images // at_once(pixels.shape[1]))):
            image = to_float(torch.from_numpy(pixels[rows]).permute(0, 3, 1, 2), device)
            left = left_half(image)
            lit = darker(image, left)
            everywhere = torch.ones_like(left)
            rebuilt, made = inverter(image, everywhere), {WHOLE: inverter(lit, everywhere), MASKED: inverter(lit, left)}
            for name, results in made.items():
                measured[name].append(shares(results - rebuilt, darker(image, everywhere) - image, left).cpu())
            if not shown:
                shown = [as_pixels(column[:SHOWN]).cpu().numpy() for column in (image, lit, rebuilt, *made.values())]
            progress.advance(len(rows))
    table_rows = [
        mean_row(STUDY, name, metric, torch.cat(values)[:, column].numpy(), evaluate.confidence)
        for name, values in measured.items()
        for column, metric in enumerate(METRICS)
    ]
    write_rows(table, table_rows, how, run, [encoder, generator], inverter.precision)
    columns = np.array(["image", "darker on the left", "reconstruction", WHOLE, MASKED])
    write_arrays(pictures, columns=columns, pixels=np.stack(shown, axis=1))


def left_half(images: Tensor) -> Tensor:
    """Return the left half of images (n, 3, H, W), (n, 1, H, W) of {0, 1}."""
    left = torch.zeros_like(images[:, :1])
    left[..., : images.shape[-1] // 2] = 1
    return left


def darker(images: Tensor, place: Tensor) -> Tensor:
    """Return images (n, 3, H, W) in [-1, 1] with less light at a place (n, 1, H, W)."""
    return torch.where(place.bool(), (images + 1) * DARKER - 1, images)


def shares(change: Tensor, wanted: Tensor, left: Tensor) -> Tensor:
    """Return which share of the wanted change the left half and the right half show, (n, 2).

    Args:
        change: what changed in the results, (n, 3, H, W).
        wanted: what changes if all of an image becomes darker.
        left: the left half, (n, 1, H, W).
    """
    halves = [
        (change * wanted * half).sum(dim=(1, 2, 3)) / (wanted.square() * half).sum(dim=(1, 2, 3)).clamp(min=1e-12)
        for half in (left, 1 - left)
    ]
    return torch.stack(halves, dim=1)
