"""Blur and augmentation of discriminator inputs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline_lib.config import Augmentation, GanTraining
from pipeline_lib.imaging.blur import gaussian_blur
from pipeline_lib.runtime import ranks

NO_AUGMENTATION = Augmentation(brightness=0, contrast=0, shift=0)


class View:
    """Blurs (early in training) and augments the real and fake inputs of the discriminator in the same way."""

    def __init__(
        self,
        settings: GanTraining,
        progress: float,
        side: int,
        scale: float,
        random: torch.Generator,
        of_offsets: torch.Generator,
    ):
        augment = settings.augment if progress < settings.augment.until else NO_AUGMENTATION
        groups, batch = 8, settings.batch
        light = torch.rand(2, batch, 1, 1, 1, generator=random, device=random.device) * 2 - 1
        self._brightness = ranks.own_rows(light[0]) * augment.brightness
        self._contrast = 1 + ranks.own_rows(light[1]) * augment.contrast
        self._reach = round(augment.shift * side)
        offsets = torch.randint(0, 2 * self._reach + 1, (groups, 2), generator=of_offsets).tolist()
        # groups of the whole batch, so that several processes shift an image as one does
        group = ranks.own_rows(torch.arange(batch) // math.ceil(batch / groups))
        own, counts = group.unique_consecutive(return_counts=True)
        self._offsets, self._counts = [offsets[number] for number in own.tolist()], counts.tolist()
        left = 1 - progress / settings.blur_share if settings.blur_share else 0.0
        self._sigma = max(0.0, left) * settings.blur_sigma * scale

    def __call__(self, images: Tensor) -> Tensor:
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = (images - mean) * self._contrast + mean + self._brightness
        if self._sigma > 0.1:
            images = gaussian_blur(images, self._sigma)
        return self._shift(images) if self._reach else images

    def _shift(self, images: Tensor) -> Tensor:
        side = images.shape[-1]
        padded = F.pad(images, (self._reach,) * 4, mode="reflect")
        moved = [
            chunk[:, :, top : top + side, left : left + side]
            for chunk, (top, left) in zip(padded.split(self._counts), self._offsets, strict=True)
        ]
        return torch.cat(moved).contiguous(memory_format=torch.channels_last)
