"""Augmentation of discriminator inputs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline_lib.config import GanTraining
from pipeline_lib.runtime import ranks

BRIGHTNESS = 0.2  # largest shift, for pixels in [-1, 1]
CONTRAST = 0.4  # largest relative change
SHIFT = 0.0625  # largest translation as a share of the image's side


class View:
    """Augments the real and fake inputs of the discriminator in the same way, until the settings say otherwise."""

    def __init__(
        self,
        settings: GanTraining,
        progress: float,
        side: int,
        random: torch.Generator,
        of_offsets: torch.Generator,
    ):
        strength = float(progress < settings.augment_until)
        groups, batch = 8, settings.batch
        light = torch.rand(2, batch, 1, 1, 1, generator=random, device=random.device) * 2 - 1
        self._brightness = ranks.own_rows(light[0]) * (strength * BRIGHTNESS)
        self._contrast = 1 + ranks.own_rows(light[1]) * (strength * CONTRAST)
        self._reach = round(strength * SHIFT * side)
        offsets = torch.randint(0, 2 * self._reach + 1, (groups, 2), generator=of_offsets).tolist()
        # groups of the whole batch, so that several processes shift an image as one does
        group = ranks.own_rows(torch.arange(batch) // math.ceil(batch / groups))
        own, counts = group.unique_consecutive(return_counts=True)
        self._offsets, self._counts = [offsets[number] for number in own.tolist()], counts.tolist()

    def __call__(self, images: Tensor) -> Tensor:
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = (images - mean) * self._contrast + mean + self._brightness
        return self._shift(images) if self._reach else images

    def _shift(self, images: Tensor) -> Tensor:
        side = images.shape[-1]
        padded = F.pad(images, (self._reach,) * 4, mode="reflect")
        moved = [
            chunk[:, :, top : top + side, left : left + side]
            for chunk, (top, left) in zip(padded.split(self._counts), self._offsets, strict=True)
        ]
        return torch.cat(moved).contiguous(memory_format=torch.channels_last)
