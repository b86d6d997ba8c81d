"""Finishing: what is kept of a composite, so that an edit changes only what it is meant to change."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pipeline_lib.imaging.collages import Masks
from pipeline_lib.imaging.membrane import spread_inwards

Finish = Literal["none", "region", "detail"]


def finish(context: Tensor, donor: Tensor, composite: Tensor, masks: Masks, how: Finish) -> Tensor:
    """Return the finished edits.

    - `none` keeps the whole composite, as the paper does (Fig. 12).
    - `region` keeps the pasted and the unknown pixels of it. The difference in colour that it has to the context along
      their rim is spread inwards and taken away, so no seam is left.
    - `detail` does the same, and then takes the pasted pixels from the donor, where they are sharp. The difference in
      colour that the donor has to the composite along their rim is spread inwards and taken away. Unknown pixels stay
      the composite's: there the donor and the context both show what is no longer there.

    But for `none`, every pixel that is neither pasted nor unknown is the context's own.

    Args:
        context: images that were edited, (n, 3, H, W) in [-1, 1].
        donor: images that the region came from.
        composite: what the editor made of both.
        masks: what came from the donor and what the editor filled in.
        how: what to keep.

    Returns:
        (n, 3, H, W) in [-1, 1].
    """
    if how == "none":
        return composite
    region = masks.region
    blended = composite + spread_inwards(context - composite, region)
    if how == "detail":
        blended = torch.where(masks.pasted.bool(), donor + spread_inwards(blended - donor, masks.pasted), blended)
    return torch.where(region.bool(), blended.clamp(-1, 1), context)
