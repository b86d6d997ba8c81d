"""The base class of part segmenters, and a small U-Net."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Segmenter(nn.Module):
    """Maps images to the part of each pixel.

    Args:
        parts: names of the parts, in the order of their codes; the first is the background.
    """

    architecture: str

    def __init__(self, parts: Sequence[str]):
        super().__init__()
        self.parts = list(parts)

    def forward(self, images: Tensor) -> Tensor:
        """Return the part code of each pixel, int64 (n, H, W), of images (n, 3, H, W) in [-1, 1]."""
        raise NotImplementedError


class UNetSegmenter(Segmenter):
    """Three levels down and up, with skip connections.

    Args:
        parts: names of the parts, in the order of their codes; the first is the background.
        width: channels of the first level.
    """

    architecture = "unet-segmenter"

    def __init__(self, parts: Sequence[str], width: int):
        super().__init__(parts)
        self.arguments = {"parts": self.parts, "width": width}
        self.down1, self.down2 = _Stage(3, width), _Stage(width, 2 * width)
        self.down3 = _Stage(2 * width, 4 * width)
        self.bottom = _Stage(4 * width, 4 * width)
        self.up3, self.up2 = _Stage(8 * width, 2 * width), _Stage(4 * width, width)
        self.up1 = _Stage(2 * width, width)
        self.head = nn.Conv2d(width, len(self.parts), 1)

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (n, parts, H, W) of images (n, 3, H, W) in [-1, 1], with H and W divisible by 8."""
        level1 = self.down1(images.contiguous(memory_format=torch.channels_last))
        level2 = self.down2(F.max_pool2d(level1, 2))
        level3 = self.down3(F.max_pool2d(level2, 2))
        x = self.bottom(F.max_pool2d(level3, 2))
        x = self.up3(torch.cat([F.interpolate(x, scale_factor=2), level3], dim=1))
        x = self.up2(torch.cat([F.interpolate(x, scale_factor=2), level2], dim=1))
        x = self.up1(torch.cat([F.interpolate(x, scale_factor=2), level1], dim=1))
        return self.head(x)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images).argmax(dim=1)


class _Stage(nn.Sequential):
    def __init__(self, inputs: int, outputs: int):
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )


def group_codes(found: Tensor, groups: Sequence[Sequence[int]], classes: int) -> Tensor:
    """Convert class indices, int64 of any shape, to part codes, from 1 for the first group; 0 is in no group.

    Args:
        found: class indices below `classes`.
        groups: class indices of each part; if two share a class, the later is in front (paper A.1.2).
        classes: number of classes.
    """
    codes = torch.zeros(classes, dtype=torch.int64, device=found.device)
    for code, group in enumerate(groups, start=1):
        codes[list(group)] = code
    return codes[found]
