"""Collages of one part of each of several images, from back to front (paper 4.1, A.1.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.data.part_masks import PartMasks
from pipeline_lib.imaging.collages import make_collage
from pipeline_lib.imaging.membrane import spread_inwards
from pipeline_lib.imaging.transfer import to_float
from pipeline_lib.runtime import seeding

LEAST = 0.001  # of an image's pixels; a smaller part is a mistake of the segmenter


class Layers(NamedTuple):
    """The parts of n collages, from back to front."""

    images: Tensor  # (n, c, 3, H, W) in [-1, 1]
    masks: Tensor  # bool (n, c, 1, H, W); empty where the image that was drawn lacks the part
    names: np.ndarray  # of the images, str (n, c)


def masks_of_parts(parts: Path, names: Sequence[str], side: int) -> list[PartMasks]:
    """Return the masks of each part but the background, the first name."""
    return [PartMasks(parts, [name], side, math.ceil(LEAST * side**2)) for name in names[1:]]


def draw_collages(
    image_ids: Sequence[str],
    pixels: np.ndarray,
    found: Sequence[PartMasks],
    numbers: Sequence[int],
    study: str,
    seed: int,
    device: torch.device,
) -> Layers:
    """Return the layers of collages, each part from an image drawn at random.

    Args:
        image_ids: names of the images.
        pixels: the images, uint8 (m, H, W, 3).
        found: masks of each part from back to front, but for the background.
        numbers: of the collages; what is drawn depends on the number, the seed and the study.
        study: name of the study.
        seed: seed of the run.
        device: where the layers are wanted.
    """
    randoms = [seeding.numpy_generator(seed, study, number) for number in numbers]
    drawn = np.stack([random.integers(0, len(image_ids), len(found) + 1) for random in randoms])
    return gather_layers(image_ids, pixels, found, drawn, device)


def gather_layers(
    image_ids: Sequence[str], pixels: np.ndarray, found: Sequence[PartMasks], drawn: np.ndarray, device: torch.device
) -> Layers:
    """Return the layers of collages.

    Args:
        image_ids: names of the images.
        pixels: the images, uint8 (m, H, W, 3).
        found: masks of each part but the background.
        drawn: which image gives each part, int (n, c), the background first.
        device: where the layers are wanted.
    """
    side = pixels.shape[1]
    empty = np.zeros((side, side), bool)

    def mask_of(place: int, part: int) -> np.ndarray:
        of_image = [masks.get(image_ids[place], empty) for masks in found]
        return of_image[part - 1] if part else ~np.logical_or.reduce(of_image)

    masks = np.stack([[mask_of(int(place), part) for part, place in enumerate(row)] for row in drawn])
    images = to_float(torch.from_numpy(pixels[drawn.flatten()]).permute(0, 3, 1, 2), device)
    return Layers(
        images.unflatten(0, drawn.shape), torch.from_numpy(masks[:, :, None]).to(device), np.array(image_ids)[drawn]
    )


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
