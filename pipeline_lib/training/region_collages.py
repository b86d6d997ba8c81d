"""Training images whose region comes from another image, with its value of the attribute that the region shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline_lib.config import BoxRegion, PartRegion
from pipeline_lib.imaging.collages import make_collage, region_masks
from pipeline_lib.imaging.masks import unpack_masks


class SwappedRegion(NamedTuple):
    """A region, the masks of its parts in every image, and what it shows."""

    region: PartRegion | BoxRegion
    packed: Tensor  # packed bits, uint8 (n, bytes)
    attribute: int  # column of the attribute


class RegionCollages:
    """Pastes the region of random images into a share of a batch, so that it says nothing about the rest.

    In a biased dataset nearly all smiles have long hair, and a detector tells it by the hair. Collages have either. So
    related attributes are learnt from collages alone, where they are independent, and all others from unchanged images.

    Args:
        images: uint8 (n, 3, H, W).
        truth: attributes, 0 or 1, NaN where unknown, (n, attributes).
        swapped: the regions, of which each collage has one.
        positions: images to take regions from; one without any part is none of them, and gets no region either, and
            from one of which the region's attribute is unknown no region is taken.
        related: columns of the attributes that are associated in the dataset; those that the regions show, and others
            that no region touches.
        share: of the images of a batch that become collages.
    """

    def __init__(
        self,
        images: Tensor,
        truth: Tensor,
        swapped: Sequence[SwappedRegion],
        positions: Tensor,
        related: Sequence[int],
        share: float,
    ):
        self._images, self._truth, self._swapped, self._share = images, truth, swapped, share
        self._related = torch.zeros(truth.shape[1]).index_fill(0, torch.tensor(related), 1.0)
        self._has_part = torch.stack([(region.packed > 0).any(dim=1) for region in swapped])
        self._donors = [
            positions[(has_part & ~truth[:, region.attribute].isnan())[positions]]
            for region, has_part in zip(swapped, self._has_part, strict=True)
        ]

    @property
    def have_donors(self) -> bool:
        """Whether every region can be taken from some image."""
        return all(map(len, self._donors))

    def __call__(self, chosen: Tensor, weights: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, truth (NaN where unknown) and loss weights of a batch in which some images are collages.

        Args:
            chosen: positions of its images, int64 (m,).
            weights: their loss weights, (m, attributes), which an image without any part keeps.
            random: generator of this step.
        """
        images, truth = self._images[chosen], self._truth[chosen].clone()
        drawn = [donors[torch.randint(len(donors), (len(chosen),), generator=random)] for donors in self._donors]
        replaced = torch.rand(len(chosen), generator=random) < self._share
        which = torch.zeros(len(chosen), dtype=torch.long)
        if len(self._swapped) > 1:
            which = torch.randint(len(self._swapped), (len(chosen),), generator=random)
        has_part = self._has_part[which, chosen]
        for number, (swapped, donors) in enumerate(zip(self._swapped, drawn, strict=True)):
            own = replaced & has_part & (which == number)
            parts = (unpack_masks(swapped.packed[of], images.shape[-1]) for of in (donors, chosen))
            pasted = region_masks(swapped.region, *parts).region * own.view(-1, 1, 1, 1)
            truth[own, swapped.attribute] = self._truth[donors[own], swapped.attribute]
            images = make_collage(images, self._images[donors], pasted)
        is_collage = (replaced & has_part)[:, None]
        weights = torch.where(is_collage, self._related, weights * (1 - self._related * has_part[:, None]))
        return images, truth, weights
