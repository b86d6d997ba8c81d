"""What the rest of an image does when the light on one half of it is changed (paper A.2.4, Fig. 22)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.data.shards import read_shards
from pipeline_lib.imaging.transfer import at_once
from pipeline_lib.studies.study import Findings, Study, as_images

DARKER = 0.6  # factor of the light on the left half
METRICS = "share of the change, lit half", "share of the change, other half"
MASKED, WHOLE = "composition, other half unknown", "composition"


def measure(study: Study, device: torch.device) -> None:
    """Darken the left half of real images, and measure how much of the change each half of the result shows.

    A result is compared with the reconstruction of the image itself. A share of 1 in both halves means that the
    whole image has become darker, and of 1 in the left and 0 in the right half that the result is as the collage.
    """
    _, pixels = read_shards(study.images)
    chosen = np.sort(study.random().choice(len(pixels), study.count(len(pixels)), replace=False))
    inverter = study.inverter(device)
    found = Findings(study)
    for rows in study.progress(chosen, at_once(pixels.shape[1])):
        image = as_images(pixels[rows], device)
        left = left_half(image)
        lit, everywhere = darker(image, left), torch.ones_like(left)
        rebuilt = inverter(image, everywhere)
        made = {WHOLE: inverter(lit, everywhere), MASKED: inverter(lit, left)}
        for name, results in made.items():
            halves = shares(results - rebuilt, darker(image, everywhere) - image, left)
            found.add(name, dict(zip(METRICS, halves.unbind(1), strict=True)))
        found.show([image, lit, rebuilt, *made.values()])
    found.write(["image", "darker on the left", "reconstruction", WHOLE, MASKED])


def left_half(images: Tensor) -> Tensor:
    """Return the left half of images (n, 3, H, W), (n, 1, H, W) of {0, 1}."""
    left = torch.zeros_like(images[:, :1])
    left[..., : images.shape[-1] // 2] = 1
    return left


def darker(images: Tensor, place: Tensor) -> Tensor:
    """Return images (n, 3, H, W) in [-1, 1] with less light at a place (n, 1, H, W)."""
    return torch.where(place.bool(), (images + 1) * DARKER - 1, images)


def shares(change: Tensor, wanted: Tensor, left: Tensor) -> Tensor:
    """Return which share of the wanted change (n, 3, H, W) the left half and the right half show, (n, 2)."""
    halves = [
        (change * wanted * half).sum(dim=(1, 2, 3)) / (wanted.square() * half).sum(dim=(1, 2, 3)).clamp(min=1e-12)
        for half in (left, 1 - left)
    ]
    return torch.stack(halves, dim=1)
