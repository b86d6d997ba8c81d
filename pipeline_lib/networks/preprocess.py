"""Preprocessing for pretrained networks, which resizes and normalises images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Preprocess(nn.Module):
    """Resizes, crops and normalises images.

    Args:
        side: side, or height and width, in pixels to which images are resized; None does not resize.
        mean: channel means, subtracted from colours in [0, 1].
        std: channel standard deviations, which divide the result.
        crop: height and width of the centre crop, padded with black where it exceeds the resized image; None does not
            crop.
        resample: interpolation of the resize.
    """

    def __init__(
        self,
        side: int | Sequence[int] | None,
        mean: Sequence[float],
        std: Sequence[float],
        crop: Sequence[int] | None = None,
        resample: Literal["bilinear", "bicubic"] = "bilinear",
    ):
        super().__init__()
        self.side, self.crop, self.resample = side, crop, resample
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Preprocess images (n, 3, H, W) in [-1, 1]."""
        size = (self.side, self.side) if isinstance(self.side, int) else self.side and tuple(self.side)
        if size and images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode=self.resample, antialias=True)
            images = images.clamp(-1, 1) if self.resample == "bicubic" else images  # which overshoots at edges
        if self.crop:
            images = _crop_middle(images, *self.crop)
        return ((images + 1) / 2 - self.mean) / self.std


def _crop_middle(images: Tensor, height: int, width: int) -> Tensor:
    missing = height - images.shape[-2], width - images.shape[-1]
    # an odd pixel more is cut off, and added, at the bottom and at the right
    (top, bottom), (left, right) = ((int(pixels / 2), pixels - int(pixels / 2)) for pixels in missing)
    return F.pad(images, (left, right, top, bottom), value=-1)  # a negative pad cuts off
