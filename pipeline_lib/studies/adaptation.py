"""An encoder fine-tuned on the image that is to be edited (paper A.2.4, Fig. 23)."""

from __future__ import annotations

import numpy as np
import torch

from pipeline_lib.imaging.collages import make_collage, region_masks
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.networks.distances import open_distance
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.studies.study import Findings, Study
from pipeline_lib.training.adapt import adapt_encoder

TRAINED, ADAPTED = METHODS = "encoder as trained", "encoder fine-tuned on the image"
METRICS = "L1 of the image", "perceptual distance", "L1 of an edit outside of the region", "L1 of an edit to the donor"


def measure(study: Study, device: torch.device) -> None:
    """Reconstruct and edit real images by the encoder before and after it was fine-tuned on each of them."""
    image_set, chosen = study.image_set()
    inverter = Inverter(study.encoder, study.generator, device, compile=False)
    as_trained = {name: value.clone() for name, value in inverter.encoder.state_dict().items()}
    distance = open_distance(study.evaluate.distance).to(device)
    found = Findings(study)
    for ((position, other),) in study.progress(list(zip(chosen, np.roll(chosen, 1), strict=True))):
        image, own_parts = image_set.look(np.array([position])).to(device)
        donor, donor_parts = image_set.look(np.array([other])).to(device)
        masks = region_masks(study.rebalance.edit.region, donor_parts, own_parts)
        collage, everywhere = make_collage(image, donor, masks.pasted), torch.ones_like(masks.pasted)
        row = [image, collage]
        for name in METHODS:
            if name == ADAPTED:
                steps, masking = study.scale.adaptation_steps, study.like.mask
                with torch.enable_grad():
                    adapt_encoder(inverter, image, distance, steps=steps, masks=masking, seed=study.seed)
            rebuilt, edited = inverter(image, everywhere), inverter(collage, masks.known)
            figures = (
                masked_l1(image, rebuilt, everywhere),
                distance(image, rebuilt),
                masked_l1(image, edited, 1 - masks.region),
                masked_l1(donor, edited, masks.pasted),
            )
            found.add(name, dict(zip(METRICS, figures, strict=True)))
            row += [rebuilt, edited]
        inverter.encoder.load_state_dict(as_trained)
        found.show(row)
    found.write(
        ["image", "collage", "as trained", "its edit", "fine-tuned", "its edit"],
        differences=[(TRAINED, ADAPTED, metric) for metric in METRICS[:3]],
    )
