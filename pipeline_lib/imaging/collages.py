"""Collages: which pixels an edit pastes and which it leaves unknown (paper 3.2 and Eq. 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline_lib.config import BoxRegion, PartRegion
from pipeline_lib.imaging.masks import box_mask, grow


def region_masks(region: PartRegion | BoxRegion, donor_parts: Tensor, context_parts: Tensor) -> tuple[Tensor, Tensor]:
    """Return what an edit pastes and what it leaves unknown.

    The pasted pixels are the donor's part, grown. Unknown are a ring of `buffer` round them, and whatever of the
    context's own part would be left over: half of the old mouth beside the new one is no evidence of either.

    Args:
        region: the config section.
        donor_parts: masks (n, 1, H, W) of the part in the donors; only their shape matters for a box.
        context_parts: masks (n, 1, H, W) of the part in the images that are edited.

    Returns:
        pasted and unknown, both (n, 1, H, W) of {0, 1}; they do not overlap.
    """
    resolution = donor_parts.shape[-1]
    buffer = round(region.buffer * resolution)
    if isinstance(region, BoxRegion):
        pasted = box_mask(region, resolution).to(donor_parts).expand_as(donor_parts)
        return pasted, grow(pasted, buffer) - pasted
    reach = round(region.grow * resolution)
    pasted = grow(donor_parts, reach)
    around = torch.maximum(grow(pasted, buffer), grow(context_parts, reach))
    return pasted, around - torch.minimum(around, pasted)


def make_collage(context: Tensor, donor: Tensor, pasted: Tensor) -> Tensor:
    """Lay the donor's pixels where `pasted` is 1 over the context (paper Eq. 4); all of shape (n, ., H, W)."""
    return torch.where(pasted.bool(), donor, context)
