"""Parts found without labels, by what changes with a superpixel (paper 4.4, Fig. 8 and 27)."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from scipy.ndimage import distance_transform_edt

from pipeline_lib.data.shards import read_shards
from pipeline_lib.evaluation.leakage import area_under_curve
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.studies.collages import PartImages
from pipeline_lib.studies.independence import deviation, draw_samples, replace_parts
from pipeline_lib.studies.pictures import heat_map, outline
from pipeline_lib.studies.study import Findings, Study

METRIC = "area under the curve for the part of the superpixel"
VARIATION, NEARNESS = "variation with the superpixel", "nearness to the superpixel"
SUPERPIXELS = 36  # a square number
COLOUR = 4.0  # weight of a colour difference of the whole range against one of the side of a superpixel
LEAST = 0.02  # of the image's pixels that a part has outside of the superpixel, and that are in no part of it
PURE = 0.8  # share of a superpixel that is one part


def measure(study: Study, device: torch.device) -> None:
    """Replace one superpixel of each image by several samples, and ask whether its part varies with it.

    Each pixel outside of the superpixel is scored by its standard deviation over the replacements, and by its nearness
    to the superpixel for comparison. The area under the curve says how well a score tells the pixels of the same part,
    which the segmenter found and which are only the truth to compare with, from the others.
    """
    images, (_, samples) = PartImages(study.images, study.parts, study.names, least=0), read_shards(study.samples)
    count = len(images.image_ids)
    inverter = study.inverter(device)
    found = Findings(study)
    for (place,) in study.progress(study.random().permutation(count)[: study.count(count)]):
        random, pixels = study.random(images.image_ids[place]), images.pixels[place]
        chosen = draw_superpixel(superpixels(pixels, SUPERPIXELS), images.masks(place), random)
        if chosen is None:
            continue
        superpixel, part = chosen
        image, donors = images.images([place], device), draw_samples(study, samples, random, device)
        replaced = replace_parts(inverter, image, donors, torch.from_numpy(superpixel)[None].to(device))
        variation = deviation(replaced)[0].cpu().numpy()
        for name, score in ((VARIATION, variation), (NEARNESS, -distance_transform_edt(~superpixel))):
            found.values[name, METRIC].append(np.array([area_outside(score, superpixel, part)]))
        heat = heat_map(variation / max(np.quantile(variation, 0.98), 1e-12), superpixel)  # few edges vary much more
        shown = np.repeat(255 * part[..., None].astype(np.uint8), 3, axis=2)
        found.show_pixels([outline(pixels, superpixel), heat, shown])
    if not found.values:
        raise DataError(f"{study.parts}: no image has a superpixel in a part that is larger than that")
    columns = ["image and superpixel", "variation", "its part"]
    found.write(columns, differences=[(NEARNESS, VARIATION, METRIC)])


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
