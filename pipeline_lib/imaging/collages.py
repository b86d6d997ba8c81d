"""Collages and the masks of their pasted and unknown pixels (paper 3.2 and Eq. 4)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline_lib.config import BoxRegion, PartRegion
from pipeline_lib.imaging.masks import box_mask, grow


class Masks(NamedTuple):
    """What an edit replaces: masks (n, 1, H, W) of {0, 1} that do not overlap."""

    pasted: Tensor  # pixels that come from the donor
    unknown: Tensor  # pixels that the editor fills in

    @property
    def region(self) -> Tensor:
        """Every pixel that may change."""
        return torch.maximum(self.pasted, self.unknown)

    @property
    def known(self) -> Tensor:
        """Every pixel of the collage that is evidence, from either image."""
        return 1 - self.unknown


def region_masks(region: PartRegion | BoxRegion, donor_parts: Tensor, context_parts: Tensor) -> Masks:
    """Return the pasted and the unknown pixels of an edit.

    The pasted pixels are the donor's part, dilated. Unknown are a ring of `buffer` around them and the remaining pixels
    of the context's own part, such as the rest of the old mouth next to the new one.

    Args:
        region: the config section.
        donor_parts: masks (n, 1, H, W) of the part in the donors; for a box only their shape is used.
        context_parts: masks (n, 1, H, W) of the part in the edited images.
    """
    resolution = donor_parts.shape[-1]
    buffer = round(region.buffer * resolution)
    if isinstance(region, BoxRegion):
        pasted = box_mask(region, resolution).to(donor_parts).expand_as(donor_parts)
        return Masks(pasted, grow(pasted, buffer) - pasted)
    reach = round(region.grow * resolution)
    pasted = grow(donor_parts, reach)
    around = torch.maximum(grow(pasted, buffer), grow(context_parts, reach))
    return Masks(pasted, around - torch.minimum(around, pasted))


def make_collage(context: Tensor, donor: Tensor, pasted: Tensor) -> Tensor:
    """Paste the donor's pixels into the context where `pasted` is 1 (paper Eq. 4); all of shape (n, ., H, W)."""
    return torch.where(pasted.bool(), donor, context)
