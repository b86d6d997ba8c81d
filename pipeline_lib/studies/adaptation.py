"""An encoder fine-tuned on the image that is to be edited (paper A.2.4, Fig. 23)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.imaging.collages import Masks, make_collage, region_masks
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.networks.distances import open_distance
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.study import Findings, Study
from pipeline_lib.training.adapt import adapt_encoder

TRAINED, ADAPTED = METHODS = "encoder as trained", "encoder fine-tuned on the image"
METRICS = "L1 of the image", "perceptual distance", "L1 of an edit outside of the region", "L1 of an edit to the donor"


@stage(revision=2)
def study_adaptation(*, study: Study, device: torch.device) -> None:
    """Reconstruct and edit real images by the encoder before and after it was fine-tuned on each of them.

    Args:
        study: with images that the encoder has not seen.
        device: where to compute.
    """
    image_set, chosen = study.image_set()
    inverter = Inverter(study.encoder, study.generator, device, compile=False)
    as_trained = {name: value.clone() for name, value in inverter.encoder.state_dict().items()}
    distance = open_distance(study.evaluate.distance).to(device)
    found = Findings(study)
    for ((position, other),) in study.progress(list(zip(chosen, np.roll(chosen, 1), strict=True))):
        image, own_parts = image_set.look(np.array([position])).to(device)
        donor, donor_parts = image_set.look(np.array([other])).to(device)
        masks = region_masks(study.rebalance.edit.region, donor_parts, own_parts)
        row = [image, make_collage(image, donor, masks.pasted)]
        for name in METHODS:
            if name == ADAPTED:
                steps, masking = study.settings.adaptation_steps, study.like.mask
                adapt_encoder(inverter, image, distance, steps=steps, masks=masking, seed=study.seed)
            rebuilt, edited, figures = _measure(inverter, distance, image, donor, masks)
            found.add(name, dict(zip(METRICS, figures, strict=True)))
            row += [rebuilt, edited]
        inverter.encoder.load_state_dict(as_trained)
        found.show(row)
    found.write(
        ["image", "collage", "as trained", "its edit", "fine-tuned", "its edit"],
        differences=[(TRAINED, ADAPTED, metric) for metric in METRICS[:3]],
    )


@torch.no_grad()
def _measure(
    inverter: Inverter, distance: torch.nn.Module, image: Tensor, donor: Tensor, masks: Masks
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Return an image's reconstruction, its edit, both (1, 3, H, W), and the figures of `METRICS`, each (1,)."""
    rebuilt = inverter(image, torch.ones_like(masks.pasted))
    edited = inverter(make_collage(image, donor, masks.pasted), masks.known)
    figures = (
        masked_l1(image, rebuilt, torch.ones_like(masks.pasted)),
        distance(image, rebuilt),
        masked_l1(image, edited, 1 - masks.region),
        masked_l1(donor, edited, masks.pasted),
    )
    return rebuilt, edited, figures
