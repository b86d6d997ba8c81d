"""An untrained convolutional network as an image prior (Ulyanov, Vedaldi and Lempitsky 2018), for small images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NOISE_CHANNELS = 32  # of the fixed input
WIDTHS = (32, 64, 64, 64)  # from the full resolution down, each at half the side of the one before
SKIPPED = 4  # channels of each skip connection


class DeepImagePrior(nn.Module):
    """An encoder and decoder with narrow skip connections, from noise (n, 32, H, W) to images (n, 3, H, W) in [-1, 1].

    H and W are multiples of 16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down, self.skip, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for inputs, outputs in zip((NOISE_CHANNELS, *WIDTHS), WIDTHS, strict=False):
            self.down.append(nn.Sequential(_block(inputs, outputs, stride=2), _block(outputs, outputs)))
            self.skip.append(_block(inputs, SKIPPED, kernel=1))
        for outputs, deeper in zip(WIDTHS, (*WIDTHS[1:], WIDTHS[-1]), strict=True):
            self.up.append(_block(deeper + SKIPPED, outputs))
        self.head = nn.Conv2d(WIDTHS[0], 3, 1)

    def forward(self, noise: Tensor) -> Tensor:
        skipped, features = [], noise
        for down, skip in zip(self.down, self.skip, strict=True):
            skipped.append(skip(features))
            features = down(features)
        for up, shallow in zip(reversed(self.up), reversed(skipped), strict=True):
            larger = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
            features = up(torch.cat([larger, shallow], dim=1))
        return torch.tanh(self.head(features))


def _block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, padding_mode="reflect")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2))
