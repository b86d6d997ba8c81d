"""How much of an image changes when one of its parts is replaced (paper 4.4, Table 1, Fig. 8 and 26)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config import Evaluate, PrecisionChoice, Studies
from pipeline_lib.data.part_masks import PartMasks
from pipeline_lib.data.shards import read_shards
from pipeline_lib.imaging.collages import make_collage
from pipeline_lib.imaging.transfer import to_float
from pipeline_lib.networks.inversion import Inverter, open_inverter
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.rows import mean_row, write_arrays, write_rows

logger = logging.getLogger(__name__)

STUDY, METRIC, AVERAGE = "independence", "variation outside the part", "average"
SHOWN = 4  # images in the figure
LEAST = 0.001  # of an image's pixels; a smaller part is a mistake of the segmenter
#: The paper's Table 1, for faces. CelebA-HQ is its ProGAN, FFHQ its StyleGAN.
PAPER = {
    "progan": {
        "background": 0.167, "skin": 0.177, "eye": 0.043, "ear": 0.024, "nose": 0.030, "mouth": 0.038, "hair": 0.170,
        AVERAGE: 0.093,
    },
    "stylegan2": {
        "background": 0.148, "skin": 0.248, "eye": 0.062, "ear": 0.024, "nose": 0.065, "mouth": 0.045, "hair": 0.140,
        AVERAGE: 0.105,
    },
}  # fmt: skip


@torch.no_grad()
@stage(revision=1)
def study_independence(
    *,
    images: list[Path],
    parts: Path,
    samples: list[Path],
    encoder: Path,
    generator: Path,
    precision: Path,
    names: list[str],
    faces_of: str | None,
    settings: Studies,
    evaluate: Evaluate,
    inversion: PrecisionChoice,
    run: str,
    seed: int,
    table: Path,
    maps: Path,
    device: torch.device,
) -> None:
    """Replace each part of some images by that of several samples, and measure the variation outside the part.

    Args:
        images: shards of the images.
        parts: their table of parts.
        samples: shards of the generator's samples, which parts come from.
        encoder: weight file.
        generator: weight file.
        precision: report of the encoder, with the precision of the inversion.
        names: names of the parts, the background first; it is every pixel without a part.
        faces_of: family of the published generator of faces, whose row of Table 1 is put beside; None for other images.
        settings: the config section.
        evaluate: the config section with the confidence level.
        inversion: precision in the config.
        run: name of the run, stored in the file.
        seed: seed of the run.
        table: table to write, with a row for each part, over the images that have it, and their average.
        maps: NPZ to write, with the maps of the first images for the figure.
        device: where to compute.

    Raises:
        DataError: fewer samples than replacements, or no image with a part.
    """
    how = settings.independence
    image_ids, pixels = read_shards(images)
    _, replacing = read_shards(samples)
    if len(replacing) < how.replacements:
        raise DataError(
            f"`studies.independence.replacements`: {how.replacements}, but there are only {len(replacing)} samples; "
            "use fewer, or increase `sample.images`"
        )
    side = pixels.shape[1]
    found = {name: PartMasks(parts, [name], side, math.ceil(LEAST * side**2)) for name in names[1:]}
    chosen = _draw_images(image_ids, found, how.images, seed)
    if not chosen:
        raise DataError(f"{parts}: no image has a part, so none can be replaced")
    inverter = open_inverter(encoder, generator, device, inversion, precision)
    scores: dict[str, list[float]] = {name: [] for name in (*names, AVERAGE)}
    kept: list[dict[str, np.ndarray]] = []
    with Progress(f"study_{STUDY}", len(chosen)) as progress:
        for place in chosen:
            masks = part_masks(image_ids[place], names, found, side)
            random = seeding.numpy_generator(seed, STUDY, image_ids[place])
            drawn = random.choice(len(replacing), how.replacements, replace=False)
            image, donors = (
                to_float(torch.from_numpy(rows).permute(0, 3, 1, 2), device)
                for rows in (pixels[[place]], replacing[np.sort(drawn)])
            )
            stack = torch.from_numpy(np.stack(list(masks.values()))).to(device)
            variation = variation_maps(replace_parts(inverter, image, donors, stack))
            outside = variation_outside(variation, stack)
            for name, value in zip(masks, outside.tolist(), strict=True):
                scores[name].append(value)
            scores[AVERAGE].append(float(outside.mean()))
            if len(kept) < SHOWN:
                kept.append(_for_figure(pixels[place], variation, masks, names))
            progress.advance(1)
    paper = PAPER.get(faces_of or "", {})
    rows = [
        mean_row(STUDY, name, METRIC, np.array(values), evaluate.confidence, paper.get(name))
        for name, values in scores.items()
        if values
    ]
    write_rows(table, rows, how, run, [encoder, generator], inverter.precision)
    write_arrays(maps, names=np.array(names), **{key: np.stack([one[key] for one in kept]) for key in kept[0]})


def part_masks(
    image_id: str, names: Sequence[str], found: Mapping[str, PartMasks], resolution: int
) -> dict[str, np.ndarray]:
    """Return the masks, bool (H, W), of an image's parts; the background, the first name, is what they leave."""
    masks = {name: found[name][image_id] for name in names[1:] if image_id in found[name]}
    background = ~np.logical_or.reduce([np.zeros((resolution, resolution), bool), *masks.values()])
    return ({names[0]: background} if background.any() else {}) | masks


def replace_parts(inverter: Inverter, image: Tensor, donors: Tensor, masks: Tensor) -> Tensor:
    """Return G(E(m_c x_n + (1 - m_c) x)) for every part c and donor n.

    Args:
        inverter: encoder and generator.
        image: x, (1, 3, H, W) in [-1, 1].
        donors: x_n, (n, 3, H, W).
        masks: m_c, bool (c, H, W).

    Returns:
        (c, n, 3, H, W) in [-1, 1].
    """
    pasted = masks[:, None, None].expand(-1, len(donors), -1, -1, -1)
    collages = make_collage(image[None], donors[None], pasted).flatten(0, 1)
    composites = inverter(collages, torch.ones_like(collages[:, :1]))
    return composites.unflatten(0, (len(masks), len(donors)))


def variation_maps(composites: Tensor) -> Tensor:
    """Return v_c, the standard deviation of a pixel over the replacements of a part, as a share of that of all parts.

    A pixel's variance is the mean of those of its three channels. Where no part changes a pixel, all shares are 0.

    Args:
        composites: (c, n, 3, H, W).

    Returns:
        (c, H, W) in [0, 1], with a sum over c of 1 or 0.
    """
    deviation = composites.double().var(dim=1, correction=0).mean(dim=1).sqrt()
    return deviation / deviation.sum(dim=0).clamp(min=1e-12)


def variation_outside(variation: Tensor, masks: Tensor) -> Tensor:
    """Return s_c = E[(1 - m_c) v_c] over all pixels, (c,), given maps and masks (c, H, W); less is more independent."""
    return (variation * ~masks).mean(dim=(1, 2))


def _draw_images(image_ids: Sequence[str], found: Mapping[str, PartMasks], count: int, seed: int) -> list[int]:
    """Draw images that have a part; a function of the seed and the set."""
    order = seeding.numpy_generator(seed, STUDY).permutation(len(image_ids))
    having = [int(place) for place in order if any(image_ids[place] in masks for masks in found.values())]
    if len(having) < count:
        logger.warning("study_independence: %d images have a part, of %d that were asked for", len(having), count)
    return having[:count]


def _for_figure(
    pixels: np.ndarray, variation: Tensor, masks: Mapping[str, np.ndarray], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return an image with maps and masks of every part of the config; those that it lacks are empty."""
    empty = np.zeros(pixels.shape[:2])
    maps = dict(zip(masks, variation.cpu().numpy(), strict=True))
    return {
        "images": pixels,
        "maps": np.stack([maps.get(name, empty) for name in names]).astype(np.float32),
        "masks": np.stack([masks.get(name, empty > 0) for name in names]),
    }
