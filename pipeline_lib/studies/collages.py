"""Images with their parts, and collages of one part of each of several, from back to front (paper 4.1, A.1.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.data.part_masks import PartMasks
from pipeline_lib.data.shards import read_shards
from pipeline_lib.imaging.collages import make_collage
from pipeline_lib.imaging.membrane import spread_inwards
from pipeline_lib.imaging.transfer import to_float
from pipeline_lib.runtime import seeding

LEAST = 0.001  # of an image's pixels; a smaller part is usually a mistake of the segmenter


class Layers(NamedTuple):
    """The parts of n collages, from back to front."""

    images: Tensor  # (n, c, 3, H, W) in [-1, 1]
    masks: Tensor  # bool (n, c, 1, H, W); empty where the image that was drawn lacks the part
    names: np.ndarray  # of the images, str (n, c)


class PartImages:
    """Images with the masks of their parts.

    Args:
        images: shards.
        parts: their table of parts; None: nothing but the background is known.
        names: names of the parts from back to front, the background first.
        least: share of an image's pixels, below which a part does not count.
    """

    def __init__(self, images: list[Path], parts: Path | None, names: Sequence[str], least: float = LEAST):
        self.image_ids, self.pixels = read_shards(images)
        self.names, self.side = names, self.pixels.shape[1]
        pixels = max(1, math.ceil(least * self.side**2))
        self.found = {name: PartMasks(parts, [name], self.side, pixels) for name in names[1:] if parts}

    def masks(self, place: int) -> dict[str, np.ndarray]:
        """Return the masks, bool (H, W), of the parts of an image; the background is what they leave."""
        image_id = self.image_ids[place]
        masks = {name: masks[image_id] for name, masks in self.found.items() if image_id in masks}
        background = ~np.logical_or.reduce([np.zeros((self.side, self.side), bool), *masks.values()])
        return ({self.names[0]: background} if background.any() else {}) | masks

    def images(self, places: np.ndarray | Sequence[int], device: torch.device) -> Tensor:
        """Return images (n, 3, H, W) in [-1, 1]."""
        return as_images(self.pixels[places], device)

    def layers(self, drawn: np.ndarray, device: torch.device) -> Layers:
        """Return the layers of collages, given which image gives each part, int (n, c), the background first."""
        empty = np.zeros((self.side, self.side), bool)
        masks = [
            [self.masks(place).get(name, empty) for name, place in zip(self.names, row, strict=True)] for row in drawn
        ]
        images = self.images(drawn.flatten(), device).unflatten(0, drawn.shape)
        return Layers(images, torch.from_numpy(np.array(masks)[:, :, None]).to(device), np.array(self.image_ids)[drawn])

    def draw(self, numbers: Sequence[int], study: str, seed: int, device: torch.device) -> Layers:
        """Return the layers of collages, each part from an image drawn at random by (seed, study, number)."""
        randoms = [seeding.numpy_generator(seed, study, number) for number in numbers]
        drawn = [random.integers(0, len(self.image_ids), len(self.names)) for random in randoms]
        return self.layers(np.stack(drawn), device)


def as_rectangles(layers: Layers) -> Layers:
    """Return the layers with the rectangle around each part in its place (paper A.2.4); empty parts stay empty."""
    rows, columns = (layers.masks.any(dim=dim, keepdim=True) for dim in (-1, -2))
    return layers._replace(masks=_between(rows, -2) & _between(columns, -1))


def _between(seen: Tensor, dim: int) -> Tensor:
    """Return what lies from the first to the last true value along a dimension, bool of the same shape."""
    counted = seen.int()
    from_first = counted.cumsum(dim) > 0
    to_last = counted.flip(dim).cumsum(dim).flip(dim) > 0
    return from_first & to_last


def lay(layers: Layers) -> tuple[Tensor, Tensor]:
    """Lay the parts over each other; returns collages (n, 3, H, W), 0 in their holes, and known pixels (n, 1, H, W)."""
    collage = torch.zeros_like(layers.images[:, 0])
    for image, mask in zip(layers.images.unbind(1), layers.masks.unbind(1), strict=True):
        collage = make_collage(collage, image, mask)
    return collage, layers.masks.any(dim=1).float()


def fill(collage: Tensor, known: Tensor, layers: Layers) -> Tensor:
    """Fill the holes of collages with the mean colour of their back layer; 0 where that is empty."""
    image, mask = layers.images[:, 0], layers.masks[:, 0]
    total = (image * mask).sum(dim=(2, 3), keepdim=True)
    colour = total / mask.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    return torch.where(known.bool(), collage, colour)


def blend_layers(layers: Layers) -> Tensor:
    """Blend the parts one after the other into the whole back image, each with its own gradients (Pérez 2003)."""
    blended = layers.images[:, 0]
    for image, mask in zip(layers.images.unbind(1)[1:], layers.masks.unbind(1)[1:], strict=True):
        cloned = image + spread_inwards(blended - image, mask.float())
        blended = torch.where(mask, cloned.clamp(-1, 1), blended)
    return blended


def as_images(pixels: np.ndarray, device: torch.device) -> Tensor:
    """Return images (n, 3, H, W) in [-1, 1] of pixels, uint8 (n, H, W, 3)."""
    return to_float(torch.from_numpy(pixels).permute(0, 3, 1, 2), device)
