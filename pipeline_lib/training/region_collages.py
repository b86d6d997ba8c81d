"""Training images whose region comes from another image, with its value of the attribute that the region shows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline_lib.config import BoxRegion, PartRegion
from pipeline_lib.imaging.collages import make_collage, region_masks
from pipeline_lib.imaging.masks import unpack_masks


class RegionCollages:
    """Pastes the region of random images into a share of a batch, so that it says nothing about the rest.

    In a biased dataset nearly all smiles have long hair, and a detector tells it by the hair. Collages have either. So
    related attributes are learnt from collages alone, where they are independent, and all others from unchanged images.

    Args:
        images: uint8 (n, 3, H, W).
        truth: attributes, 0 or 1, (n, attributes).
        packed: masks of the region's parts as packed bits, uint8 (n, bytes).
        positions: images to take regions from; one without any part is none of them, and gets no region either.
        region: the config section.
        attribute: column of the attribute that the region shows.
        related: columns of the attributes that are associated in the dataset; that one, and others that the region does
            not touch.
        share: of the images of a batch that become collages.
    """

    def __init__(
        self,
        images: Tensor,
        truth: Tensor,
        packed: Tensor,
        positions: Tensor,
        region: PartRegion | BoxRegion,
        attribute: int,
        related: Sequence[int],
        share: float,
    ):
        self._images, self._truth, self._packed, self._region = images, truth, packed, region
        self._attribute, self._share = attribute, share
        self._related = torch.zeros(truth.shape[1]).index_fill(0, torch.tensor(related), 1.0)
        self._has_part = (packed > 0).any(dim=1)
        self._donors = positions[self._has_part[positions]]

    def __call__(self, chosen: Tensor, weights: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, truth and loss weights of a batch in which some images are collages.

        Args:
            chosen: positions of its images, int64 (m,).
            weights: their loss weights, (m, attributes), which an image without any part keeps.
            random: generator of this step.
        """
        images, truth = self._images[chosen], self._truth[chosen].clone()
        donors = self._donors[torch.randint(len(self._donors), (len(chosen),), generator=random)]
        has_part = self._has_part[chosen]
        replaced = (torch.rand(len(chosen), generator=random) < self._share) & has_part
        parts = (unpack_masks(self._packed[of], images.shape[-1]) for of in (donors, chosen))
        pasted = region_masks(self._region, *parts).region * replaced.view(-1, 1, 1, 1)
        truth[replaced, self._attribute] = self._truth[donors[replaced], self._attribute]
        weights = torch.where(replaced[:, None], self._related, weights * (1 - self._related * has_part[:, None]))
        return make_collage(images, self._images[donors], pasted), truth, weights
