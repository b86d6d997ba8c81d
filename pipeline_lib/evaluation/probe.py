"""A small classifier of images or crops, trained within seconds to find out what they show."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = 20  # strides of the first layer along the longer side, at any resolution


class Probe(nn.Module):
    """Three convolutions, pooled by mean and maximum in 2x2 cells, on an image and what a small blur takes from it.

    Args:
        stride: stride of the first layer.
        width: its channels.
    """

    def __init__(self, stride: int, width: int = 16):
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(6, width, stride + 2, stride),
            *_convolution(width, 2 * width, 3, 1),
            nn.MaxPool2d(2),
            *_convolution(2 * width, 2 * width, 3, 1),
        )
        self.head = nn.Linear(16 * width, 1)

    @classmethod
    def of_side(cls, side: int) -> Probe:
        """Return a probe for images of this longer side in pixels, whose first layer has about `STRIDES` outputs."""
        return cls(max(2, round(side / STRIDES)))

    def forward(self, images: Tensor) -> Tensor:
        """Return a logit (n,) of each of images (n, 3, H, W) in [-1, 1], H and W of at least four strides."""
        detail = images - F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
        x = self.body(torch.cat([images, 4 * detail], dim=1).contiguous(memory_format=torch.channels_last))
        pooled = [F.adaptive_avg_pool2d(x, 2), F.adaptive_max_pool2d(x, 2)]
        return self.head(torch.cat(pooled, dim=1).flatten(1)).squeeze(1)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]
