"""Several examples of a part, each of which gives the same image another look (paper A.2.1, Fig. 10)."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.editing.finish import finish
from pipeline_lib.imaging.collages import make_collage, region_masks
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.studies.study import Findings, Study

COLLAGES, EDITS, FINISHED = METHODS = "collages", "composition", "composition, finished"
METRICS = "difference of two results, inside the region", "difference of two results, outside of it"
SHOWN = 3  # images in the figure


def measure(study: Study, device: torch.device) -> None:
    """Edit each image with several donors, and measure how much its results differ in the region and elsewhere.

    The region of a pair is what either donor covers. In collages nothing else differs. The edits are finished as
    `edit.finish` says.
    """
    edit, donors = study.rebalance.edit, study.scale.donors
    image_set, chosen = study.image_set()
    inverter = study.inverter(device)
    found = Findings(study, shown=SHOWN * len(METHODS))
    for (position,) in study.progress(chosen):
        drawn = image_set.donors(int(position), donors, study.seed, study.study)
        image, own_parts = image_set.look(np.full(donors, position)).to(device)
        donor, donor_parts = image_set.look(drawn).to(device)
        masks = region_masks(edit.region, donor_parts, own_parts)
        collages = make_collage(image, donor, masks.pasted)
        made = {COLLAGES: collages, EDITS: inverter(collages, masks.known)}
        made[FINISHED] = finish(image, donor, made[EDITS], masks, edit.finish)
        for name, results in made.items():
            found.add(name, dict(zip(METRICS, differences(results, masks.region)[:, None], strict=True)))
            found.show([image[:1], *results.split(1)], name)
    found.write(["image", *(f"donor {number}" for number in range(1, donors + 1))])


def differences(results: Tensor, region: Tensor) -> Tensor:
    """Return the mean L1 of pairs of n results in the regions of both and outside, (2,), given (n, ., H, W)."""
    first, second = map(list, zip(*combinations(range(len(results)), 2), strict=True))
    either = torch.maximum(region[first], region[second])
    inside, outside = (masked_l1(results[first], results[second], place).mean() for place in (either, 1 - either))
    return torch.stack([inside, outside])
