"""Preprocessing for pretrained networks, which resizes and normalises images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Preprocess(nn.Module):
    """Resizes and normalises images.

    Args:
        side: side in pixels to which images are resized; None does not resize.
        mean: channel means, subtracted from colours in [0, 1].
        std: channel standard deviations, which divide the result.
    """

    def __init__(self, side: int | None, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.side = side
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Preprocess images (n, 3, H, W) in [-1, 1]."""
        if self.side is not None and images.shape[-1] != self.side:
            images = F.interpolate(images, size=(self.side, self.side), mode="bilinear", antialias=True)
        return ((images + 1) / 2 - self.mean) / self.std
