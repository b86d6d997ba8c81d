"""What a network that somebody else trained wants of an image: another size, colours normalised its way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Preprocess(nn.Module):
    """Scales and normalises images.

    Args:
        side: to which images are scaled in pixels; None leaves them.
        mean: of each colour channel, subtracted from values in [0, 1].
        std: by which they are then divided.
    """

    def __init__(self, side: int | None, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.side = side
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Prepare images (n, 3, H, W) in [-1, 1]."""
        if self.side is not None and images.shape[-1] != self.side:
            images = F.interpolate(images, size=(self.side, self.side), mode="bilinear", antialias=True)
        return ((images + 1) / 2 - self.mean) / self.std
