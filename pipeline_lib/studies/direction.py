"""An attribute by composition, blends, a learned direction and one example (paper A.2.1, A.2.2, Fig. 15)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.data.part_masks import parts_of
from pipeline_lib.data.tables import read_table
from pipeline_lib.editing.donors import ImageSet
from pipeline_lib.imaging.collages import make_collage, region_masks
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.imaging.transfer import at_once
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.networks.distances import open_distance, perceptual_distances
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.studies.interpolation import COMPOSITION, LATENT, PIXEL, blend
from pipeline_lib.studies.study import Findings, Study

UNCHANGED, LEARNED, EXAMPLE = "reconstruction", "learned direction", "difference of one example"
METHODS = (UNCHANGED, COMPOSITION, LATENT, PIXEL, LEARNED, EXAMPLE)
ATTRIBUTE, GROUP, L1, PERCEPTUAL = METRICS = (
    "attribute by the referee", "group kept, by the referee", "L1 outside of the region",
    "perceptual distance outside of the region",
)  # fmt: skip
WEIGHT = 0.3  # of the donor in a blend, as in A.2.2, since that by the area of a mouth changes nearly nothing


def measure(study: Study, device: torch.device) -> None:
    """Give images the attribute of the first target, and measure whether they have it and what else has changed.

    Each image gets the region of a donor with the attribute, by composition and by the two blends of 4.3. The learned
    direction is the difference of the mean latents of images with and without the attribute, by the selector. The
    difference of one example is that between the latents of the first image with and without its donor's region. Both
    are added to the latent of each image (A.2.1). The referee scores the results.
    """
    region, target = study.rebalance.edit.region, study.rebalance.targets[0]
    image_set = ImageSet(study.images, study.parts, parts_of(region))
    scores = read_table(study.scores, "scores").set_index("image_id")[target.attribute]
    has = scores.reindex(image_set.names).to_numpy() > 0.5
    contexts, donors = _draw(study, image_set.with_part, has)
    inverter = study.inverter(device)
    referee = load_weights(study.referee, Detector, device)
    perceptual = open_distance(study.evaluate.distance).to(device)
    direction = _learn(study, inverter, image_set, has, device)
    example: Tensor | None = None
    found = Findings(study)
    for rows in study.progress(range(len(contexts)), at_once(image_set.pixels.shape[1])):
        context, context_parts = image_set.look(contexts[rows]).to(device)
        donor, donor_parts = image_set.look(donors[rows]).to(device)
        masks = region_masks(region, donor_parts, context_parts)
        known, taken = torch.ones_like(masks.pasted), masks.pasted.bool()
        latents = inverter.encode(context, known)
        if example is None:
            example = inverter.encode(make_collage(context[:1], donor[:1], taken[:1]), known[:1]) - latents[:1]
        made = {UNCHANGED: inverter.decode(latents)} | blend(inverter, context, donor, taken, WEIGHT)
        made |= {LEARNED: inverter.decode(latents + direction), EXAMPLE: inverter.decode(latents + example)}
        before = referee.logits(context) > 0
        for name, outputs in made.items():
            after = referee.logits(outputs) > 0
            same = [after[:, referee.index(other)] == before[:, referee.index(other)] for other in target.where]
            figures = (
                after[:, referee.index(target.attribute)].float(),
                torch.stack(same).all(dim=0).float(),
                masked_l1(context, outputs, 1 - masks.region),
                perceptual_distances(perceptual, context, outputs, 1 - masks.region),
            )
            found.add(name, dict(zip(METRICS, figures, strict=True)))
        found.show([context, donor, *made.values()])
    found.write(
        ["image", "donor", *METHODS],
        differences=[(other, COMPOSITION, metric) for other in (LATENT, PIXEL, LEARNED) for metric in METRICS],
    )


def _draw(study: Study, with_part: np.ndarray, has: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw images without the attribute, and a donor with it for each, as positions of images with the part."""
    random = study.random()
    without, having = with_part[~has[with_part]], with_part[has[with_part]]
    if not len(having):
        raise DataError("study direction: no image with the part has the attribute, by the selector")
    count = study.count(len(without))
    return random.choice(without, count, replace=False), random.choice(having, count)


def _learn(study: Study, inverter: Inverter, image_set: ImageSet, has: np.ndarray, device: torch.device) -> Tensor:
    """Return the difference of the mean latents of images with and without the attribute, (1, *latent_shape)."""
    drawn = np.sort(study.random("fit").permutation(len(has))[: study.scale.direction_fit])
    if has[drawn].all() or not has[drawn].any():
        raise DataError(
            f"study direction: of {len(drawn)} images {int(has[drawn].sum())} have the attribute by the selector, and "
            "some with and some without are needed"
        )
    latents = []
    for chunk in np.array_split(drawn, max(1, len(drawn) // at_once(image_set.pixels.shape[1]))):
        batch, _ = image_set.look(chunk).to(device)
        latents.append(inverter.encode(batch, torch.ones_like(batch[:, :1])))
    encoded, marked = torch.cat(latents), torch.from_numpy(has[drawn]).to(device)
    return (encoded[marked].mean(dim=0) - encoded[~marked].mean(dim=0))[None]
