"""How much of an image changes when one of its parts is replaced (paper 4.4, Table 1, Fig. 8 and 26)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.data.shards import read_shards
from pipeline_lib.imaging.collages import make_collage
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.studies.collages import PartImages, as_images
from pipeline_lib.studies.pictures import heat_map
from pipeline_lib.studies.study import Findings, Study

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


def measure(study: Study, device: torch.device) -> None:
    """Replace each part of some images by that of several samples, and measure the variation outside the part."""
    images, (_, samples) = PartImages(study.images, study.parts, study.names), read_shards(study.samples)
    having_some = {name for masks in images.found.values() for name in masks}
    order = study.random().permutation(len(images.image_ids))
    having = [int(place) for place in order if images.image_ids[place] in having_some]
    inverter = study.inverter(device)
    found = Findings(study, SHOWN)
    for (place,) in study.progress(having[: study.count(len(having))]):
        masks, image = images.masks(place), images.images([place], device)
        donors = draw_samples(study, samples, study.random(images.image_ids[place]), device)
        stack = torch.from_numpy(np.stack(list(masks.values()))).to(device)
        variation = variation_maps(replace_parts(inverter, image, donors, stack))
        outside = variation_outside(variation, stack)
        for name, value in zip((*masks, AVERAGE), (*outside.tolist(), float(outside.mean())), strict=True):
            found.values[name, METRIC].append(np.array([value]))
        maps = {name: heat_map(each, masks[name]) for name, each in zip(masks, variation.cpu().numpy(), strict=True)}
        blank = np.full_like(images.pixels[place], 255)
        found.show_pixels([images.pixels[place], *(maps.get(name, blank) for name in study.names)])
    found.write(
        ["image", *study.names],
        paper={(name, METRIC): value for name, value in PAPER.get(study.published or "", {}).items()},
    )


def draw_samples(study: Study, samples: np.ndarray, random: np.random.Generator, device: torch.device) -> Tensor:
    """Draw the samples that replace a part of one image, (n, 3, H, W), in the order of `samples`, uint8."""
    drawn = random.choice(len(samples), min(study.scale.replacements, len(samples)), replace=False)
    return as_images(samples[np.sort(drawn)], device)


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


def deviation(composites: Tensor) -> Tensor:
    """Return the standard deviation of each pixel of (c, n, 3, H, W) over n, from the mean variance of its channels."""
    return composites.double().var(dim=1, correction=0).mean(dim=1).sqrt()


def variation_maps(composites: Tensor) -> Tensor:
    """Return v_c, the deviation of a pixel over the replacements of a part, as a share of that of all parts.

    Args:
        composites: (c, n, 3, H, W).

    Returns:
        (c, H, W) in [0, 1], with a sum over c of 1, or 0 where no part changes a pixel.
    """
    found = deviation(composites)
    return found / found.sum(dim=0).clamp(min=1e-12)


def variation_outside(variation: Tensor, masks: Tensor) -> Tensor:
    """Return s_c = E[(1 - m_c) v_c] over all pixels, (c,), given maps and masks (c, H, W); less is more independent."""
    return (variation * ~masks).mean(dim=(1, 2))
