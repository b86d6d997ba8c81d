"""Finishing: what is kept of a composite, so that an edit changes only what it is meant to change."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pipeline_lib.imaging.blur import gaussian_blur
from pipeline_lib.imaging.collages import Masks
from pipeline_lib.imaging.masks import grow, window_of
from pipeline_lib.imaging.membrane import spread_inwards

Finish = Literal["none", "region", "detail"]

CONTRADICTION = 0.5  # in [-1, 1], between the colours of a composite and of the donor: twice a composite's usual error
COLOUR_SIGMA = 1.5 / 64  # as a share of the image's side; what a Gaussian of it lets through is colour
AROUND = 1 / 64  # of the side, by which what contradicts is dilated, since its edge is soft


def finish(context: Tensor, donor: Tensor, composite: Tensor, masks: Masks, how: Finish) -> Tensor:
    """Return the finished edits.

    - `none` keeps the whole composite, as the paper does (Fig. 12).
    - `region` keeps the pasted and the unknown pixels of it. The difference in colour that it has to the context along
      their rim is spread inwards and taken away, so no seam is left.
    - `detail` takes the donor's own pixels, which are sharp, and joins them by such a membrane, as Poisson blending
      does. The exception are unknown pixels where the colours of the composite contradict them (`CONTRADICTION`).
      There the donor shows hair, a beard or a shadow that does not belong to this face, and the composite's pixels are
      kept.

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
    if how == "region":
        blended = composite + spread_inwards(context - composite, region)
    else:
        cloned = donor + spread_inwards(context - donor, region)
        window = window_of(region, margin=4 * max(1, round(COLOUR_SIGMA * context.shape[-1])))  # all that has influence
        foreign = torch.zeros_like(region)
        around = (images[window] for images in (cloned, context, composite, region))
        foreign[window] = masks.unknown[window] * _contradicted(*around, side=context.shape[-1])
        some = slice(None)
        if foreign.device.type == "cpu":  # few images, in most batches; a GPU would have to be waited for
            some = foreign.flatten(1).any(dim=1).nonzero().flatten()
        joined = composite[some] + spread_inwards(cloned[some] - composite[some], foreign[some])
        blended = cloned.clone()
        blended[some] = torch.where(foreign[some].bool(), joined, cloned[some])
    return torch.where(region.bool(), blended.clamp(-1, 1), context)


def _contradicted(cloned: Tensor, context: Tensor, composite: Tensor, region: Tensor, side: int) -> Tensor:
    """Return where a composite, in the mean colour of the context around the region, is far from what was cloned."""
    rim = grow(region, 1) - region
    count = rim.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    offset = ((context - composite) * rim).sum(dim=(2, 3), keepdim=True) / count
    difference = gaussian_blur(composite + offset - cloned, COLOUR_SIGMA * side).abs().amax(dim=1, keepdim=True)
    return grow((difference > CONTRADICTION).to(region), max(1, round(AROUND * side)))
