"""How much of an image changes when one of its parts is replaced (paper 4.4, Table 1, Fig. 8 and 26)."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.data.part_masks import PartMasks
from pipeline_lib.imaging.collages import make_collage
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.collages import masks_of_parts
from pipeline_lib.studies.study import Study, as_images, write_arrays, write_table_of

logger = logging.getLogger(__name__)

METRIC, AVERAGE = "variation outside the part", "average"
SHOWN = 4  # images in the figure
#: The paper's Table 1, for faces. CelebA-HQ is its ProGAN, FFHQ its StyleGAN.
PAPER = {
    "progan celebahq": {
        "background": 0.167, "skin": 0.177, "eye": 0.043, "ear": 0.024, "nose": 0.030, "mouth": 0.038, "hair": 0.170,
        AVERAGE: 0.093,
    },
    "stylegan2 ffhq": {
        "background": 0.148, "skin": 0.248, "eye": 0.062, "ear": 0.024, "nose": 0.065, "mouth": 0.045, "hair": 0.140,
        AVERAGE: 0.105,
    },
}  # fmt: skip


@torch.no_grad()
@stage(revision=2)
def study_independence(*, study: Study, device: torch.device) -> None:
    """Replace each part of some images by that of several samples, and measure the variation outside the part.

    Args:
        study: with images, their parts, and samples of the generator, which parts come from.
        device: where to compute.
    """
    image_ids, pixels = study.read(study.images, least=0)
    _, replacing = study.read(study.samples, study.settings.replacements, "replacements")
    side = pixels.shape[1]
    found = dict(zip(study.names[1:], masks_of_parts(study.parts, study.names, side), strict=True))
    order = study.random().permutation(len(image_ids))
    having = [int(place) for place in order if any(image_ids[place] in masks for masks in found.values())]
    if not having:
        raise DataError(f"{study.parts}: no image has a part, so none can be replaced")
    if len(having) < study.count:
        logger.warning("study_independence: %d images have a part, of %d that were asked for", len(having), study.count)
    inverter = study.inverter(device)
    scores: dict[str, list[float]] = {name: [] for name in (*study.names, AVERAGE)}
    shown: dict[str, list[np.ndarray]] = defaultdict(list)
    for (place,) in study.progress(having[: study.count]):
        masks = part_masks(image_ids[place], study.names, found, side)
        drawn = study.random(image_ids[place]).choice(len(replacing), study.settings.replacements, replace=False)
        image, donors = as_images(pixels[[place]], device), as_images(replacing[np.sort(drawn)], device)
        stack = torch.from_numpy(np.stack(list(masks.values()))).to(device)
        variation = variation_maps(replace_parts(inverter, image, donors, stack))
        outside = variation_outside(variation, stack)
        for name, value in zip(masks, outside.tolist(), strict=True):
            scores[name].append(value)
        scores[AVERAGE].append(float(outside.mean()))
        if len(shown["images"]) < SHOWN:
            empty, maps = np.zeros((side, side)), dict(zip(masks, variation.cpu().numpy(), strict=True))
            shown["images"].append(pixels[place])
            shown["maps"].append(np.stack([maps.get(name, empty) for name in study.names]).astype(np.float32))
            shown["masks"].append(np.stack([masks.get(name, empty > 0) for name in study.names]))
    metrics = {(name, METRIC): np.array(values) for name, values in scores.items() if values}
    paper = {(name, METRIC): value for name, value in PAPER.get(study.published or "", {}).items()}
    write_table_of(study, metrics, paper=paper, precision=inverter.precision)
    write_arrays(study.pictures, names=np.array(study.names), **{key: np.stack(rows) for key, rows in shown.items()})


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
