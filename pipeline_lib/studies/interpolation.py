"""Composition against blends of two images in latent space and in pixel space (paper 4.3, Eq. 6 to 8, Fig. 7)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.imaging.collages import make_collage
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.imaging.transfer import at_once
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.studies.collages import PartImages
from pipeline_lib.studies.study import Findings, Study

COMPOSITION, LATENT, PIXEL = METHODS = ("composition", "latent blend", "pixel blend")
METRICS = ("distance to the context", "distance to the target", "distance to the collage")
LEAST = 20 / 64**2  # of an image's pixels, which a part must have


class Pair(NamedTuple):
    """The context, the target, and the name of the part that is to come from the target."""

    context: int
    target: int
    part: str


def measure(study: Study, device: torch.device) -> None:
    """Give images a part of another one by composition and by blends, and compare their distances to what was wanted.

    The figure shows the first pair of each part, of those with the largest parts.
    """
    images = PartImages(study.images, study.parts, study.names, LEAST)
    pairs = draw_pairs(images, study.count(len(images.image_ids)), study.random())
    if not pairs:
        raise DataError(f"{study.parts}: no image has a part that could be given to another one")
    inverter = study.inverter(device)
    found = Findings(study)
    made: dict[str, Tensor] = {}  # the row of the figure for each part
    for batch in study.progress(pairs, at_once(images.side)):
        context, target = (images.images([pair[role] for pair in batch], device) for role in (0, 1))
        masks = np.stack([images.masks(pair.target)[pair.part] for pair in batch])
        taken = torch.from_numpy(masks[:, None]).to(device)
        blends = blend(inverter, context, target, taken)
        for method, outputs in blends.items():
            distances = distances_of(outputs, context, target, taken)
            found.add(method, dict(zip(METRICS, distances, strict=True)))
        rows = torch.stack([context, target, make_collage(context, target, taken), *blends.values()], dim=1)
        for pair, row in zip(batch, rows, strict=True):
            made.setdefault(pair.part, row)
    first = {pair.part: pair for pair in reversed(pairs)}
    for part in sorted(first, key=lambda part: -images.masks(first[part].target)[part].sum()):
        found.show([image[None] for image in made[part]], part)
    found.write(
        ["context", "target", "collage", *METHODS],
        differences=[(other, COMPOSITION, metric) for other in (LATENT, PIXEL) for metric in METRICS],
    )


def blend(
    inverter: Inverter, context: Tensor, target: Tensor, taken: Tensor, weight: float | None = None
) -> dict[str, Tensor]:
    """Return the image that each method makes of pairs of images.

    Args:
        inverter: encoder and generator.
        context: x_1, (n, 3, H, W) in [-1, 1].
        target: x_2, of the same shape.
        taken: m_2, bool (n, 1, H, W); all other pixels are to be the context's.
        weight: 1 - alpha, that of the target in a blend; None: the share of pixels that are taken from it.
    """
    known = torch.ones_like(context[:, :1])
    shares = taken.float().mean(dim=(1, 2, 3)) if weight is None else torch.full_like(context[:, 0, 0, 0], weight)

    def mix(first: Tensor, second: Tensor) -> Tensor:
        share = shares.view(-1, *[1] * (first.ndim - 1))
        return (1 - share) * first + share * second

    return {
        COMPOSITION: inverter(make_collage(context, target, taken), known),
        LATENT: inverter.decode(mix(inverter.encode(context, known), inverter.encode(target, known))),
        PIXEL: inverter(mix(context, target), known),
    }


def distances_of(outputs: Tensor, context: Tensor, target: Tensor, taken: Tensor) -> list[Tensor]:
    """Return masked L1 (Eq. 5) to the context, to the target and to the collage, each where it is wanted, (n,)."""
    collage = make_collage(context, target, taken)
    wanted = ((context, ~taken), (target, taken), (collage, torch.ones_like(taken)))
    return [masked_l1(images, outputs, mask) for images, mask in wanted]


def draw_pairs(images: PartImages, count: int, random: np.random.Generator) -> list[Pair]:
    """Draw pairs of different images and a part of the second.

    Every part that an image has is as likely as the others. Fewer pairs are drawn if too few images have a part.
    """
    pairs, image_ids = [], images.image_ids
    for target in random.permutation(len(image_ids)).tolist():
        having = [name for name, masks in images.found.items() if image_ids[target] in masks]
        if len(pairs) == count or len(image_ids) < 2:
            break
        if having:
            other = int(random.integers(len(image_ids) - 1))
            pairs.append(Pair(other + (other >= target), target, having[int(random.integers(len(having)))]))
    return pairs
