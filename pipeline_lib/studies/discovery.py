"""Parts found without labels, by what changes with a superpixel (paper 4.4, Fig. 8 and 27)."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from scipy.ndimage import distance_transform_edt

from pipeline_lib.config import Evaluate, PrecisionChoice, Studies
from pipeline_lib.data.part_masks import PartMasks
from pipeline_lib.data.shards import read_shards
from pipeline_lib.evaluation.leakage import area_under_curve
from pipeline_lib.imaging.transfer import to_float
from pipeline_lib.networks.inversion import open_inverter
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.independence import part_masks, replace_parts
from pipeline_lib.studies.rows import mean_row, over, write_arrays, write_rows

logger = logging.getLogger(__name__)

STUDY, METRIC = "discovery", "area under the curve for the part of the superpixel"
VARIATION, NEARNESS = "variation with the superpixel", "nearness to the superpixel"
SUPERPIXELS = 36  # a square number
COLOUR = 4.0  # weight of a colour difference of the whole range against one of the side of a superpixel
LEAST = 0.02  # of the image's pixels that a part has outside of the superpixel, and that are in no part of it
PURE = 0.8  # share of a superpixel that is one part
SHOWN = 6  # images in the figure
STRUCK = (230, 40, 40)  # colour of the superpixel in the figure


@torch.no_grad()
@stage(revision=1)
def study_discovery(
    *,
    images: list[Path],
    parts: Path,
    samples: list[Path],
    encoder: Path,
    generator: Path,
    precision: Path,
    names: list[str],
    inversion: PrecisionChoice,
    settings: Studies,
    evaluate: Evaluate,
    run: str,
    seed: int,
    table: Path,
    pictures: Path,
    device: torch.device,
) -> None:
    """Replace one superpixel of each image by several samples, and ask whether its part varies with it.

    Each pixel outside of the superpixel is scored by its standard deviation over the replacements, and by its nearness
    to the superpixel for comparison. The area under the curve says how well a score tells the pixels of the same part,
    which the segmenter found, from the others.

    Args:
        images: shards of real images.
        parts: their table of parts, which are only the truth to compare with.
        samples: shards of the generator's samples, which superpixels are replaced by.
        encoder: weight file.
        generator: weight file.
        precision: report of the encoder, with the precision of the inversion.
        names: names of the parts, the background first.
        inversion: precision in the config.
        settings: the config section.
        evaluate: the config section with the confidence level.
        run: name of the run, stored in the file.
        seed: seed of the run.
        table: table to write, with rows for both scores and their difference.
        pictures: NPZ to write, with the first images and their maps for the figure.
        device: where to compute.

    Raises:
        DataError: fewer images or samples than asked for, or no image has a superpixel in a part that is larger.
    """
    how = settings.discovery
    image_ids, pixels = read_shards(images)
    if len(image_ids) < how.images:
        raise DataError(f"`studies.discovery.images`: {how.images}, but there are only {len(image_ids)}; use fewer")
    _, replacing = read_shards(samples)
    if len(replacing) < how.replacements:
        raise DataError(
            f"`studies.discovery.replacements`: {how.replacements}, but there are only {len(replacing)} samples; "
            "use fewer, or increase `sample.images`"
        )
    side = pixels.shape[1]
    found = {name: PartMasks(parts, [name], side) for name in names[1:]}
    inverter = open_inverter(encoder, generator, device, inversion, precision)
    areas: list[tuple[float, float]] = []
    shown: list[np.ndarray] = []
    with Progress(f"study_{STUDY}", how.images) as progress:
        for place in seeding.numpy_generator(seed, STUDY).permutation(len(image_ids))[: how.images]:
            random = seeding.numpy_generator(seed, STUDY, image_ids[place])
            masks = part_masks(image_ids[place], names, found, side)
            chosen = draw_superpixel(superpixels(pixels[place], SUPERPIXELS), masks, random)
            progress.advance(1)
            if chosen is None:
                continue
            superpixel, part = chosen
            drawn = np.sort(random.choice(len(replacing), how.replacements, replace=False))
            image, donors = (
                to_float(torch.from_numpy(rows).permute(0, 3, 1, 2), device)
                for rows in (pixels[[place]], replacing[drawn])
            )
            made = replace_parts(inverter, image, donors, torch.from_numpy(superpixel)[None].to(device))[0]
            variation = made.double().var(dim=0, correction=0).mean(dim=0).sqrt().cpu().numpy()
            nearness = -distance_transform_edt(~superpixel)
            areas.append(tuple(area_outside(score, superpixel, part) for score in (variation, nearness)))
            if len(shown) < SHOWN:
                shown.append(_row(pixels[place], superpixel, variation, part))
    if len(areas) < how.images:
        logger.warning(
            "study_discovery: %d of the %d images that were asked for have such a superpixel", len(areas), how.images
        )
    if not areas:
        raise DataError(f"{parts}: no image has a superpixel in a part that is larger than that")
    by_variation, by_nearness = np.array(areas).T
    rows = [
        mean_row(STUDY, name, METRIC, values, evaluate.confidence)
        for name, values in (
            (VARIATION, by_variation),
            (NEARNESS, by_nearness),
            (over(NEARNESS, VARIATION), by_nearness - by_variation),
        )
    ]
    write_rows(table, rows, how, run, [encoder, generator], inverter.precision)
    columns = np.array(["image and superpixel", "variation", "its part"])
    write_arrays(pictures, columns=columns, pixels=np.stack(shown))


def superpixels(image: np.ndarray, count: int) -> np.ndarray:
    """Return the number of the superpixel of each pixel, int (H, W), of an image, uint8 (H, W, 3).

    They are clusters of k-means over colour and place, as those of SLIC (Achanta et al. 2012) without its limits on the
    search, and start from a grid.
    """
    side = len(image)
    rows, columns = np.mgrid[:side, :side] / side
    points = np.dstack([rows, columns, COLOUR / np.sqrt(count) * image / 255.0]).reshape(-1, 5)
    grid = (np.arange(round(np.sqrt(count))) + 0.5) * side / round(np.sqrt(count))
    starts = points.reshape(side, side, 5)[np.ix_(grid.astype(int), grid.astype(int))].reshape(-1, 5)
    with warnings.catch_warnings():  # a cluster may become empty where colours are plain
        warnings.simplefilter("ignore", UserWarning)
        _, labels = kmeans2(points, starts, minit="matrix")
    return labels.reshape(side, side)


def draw_superpixel(
    labels: np.ndarray, masks: dict[str, np.ndarray], random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Draw a part of an image and a superpixel in it, both as masks, bool (H, W); None if there are none.

    A superpixel lies in a part if most of its pixels do. The part must be larger, and not all of the image.

    Args:
        labels: number of each pixel's superpixel, (H, W).
        masks: the parts by name.
        random: of the draw.
    """
    least = LEAST * labels.size
    numbers, sizes = np.unique(labels, return_counts=True)
    for part in random.permutation(list(masks.values())):
        within = np.bincount(labels[part], minlength=numbers.max() + 1)[numbers]
        enough = (within >= PURE * sizes) & (part.sum() - within >= least) & ((~part).sum() >= least)
        if enough.any():
            return labels == random.choice(numbers[enough]), part
    return None


def area_outside(score: np.ndarray, superpixel: np.ndarray, part: np.ndarray) -> float:
    """Return how well a score (H, W) tells the pixels of a part from others, outside of a superpixel; 0.5 is chance."""
    return area_under_curve(score[~superpixel], part[~superpixel])


def _row(image: np.ndarray, superpixel: np.ndarray, variation: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return an image with its superpixel in red, the variation and the part in grey, uint8 (3, H, W, 3).

    The brightest fiftieth of the pixels is white, since a few edges vary much more than all else.
    """
    marked = np.where(superpixel[..., None], np.array(STRUCK, np.uint8), image)
    grey = np.round(255 * np.minimum(1, variation / max(np.quantile(variation, 0.98), 1e-12))).astype(np.uint8)
    grey, of_part = (np.repeat(plane[..., None], 3, axis=2) for plane in (grey, 255 * part.astype(np.uint8)))
    return np.stack([marked, grey, of_part])
