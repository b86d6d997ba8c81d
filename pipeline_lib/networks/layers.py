"""Layers with an equalised learning rate, whose N(0, 1) weights are scaled at run time (Karras et al. 2018, 4.1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Up to this side in pixels a generator always computes in float32. Rounding in a coarse layer affects the whole image,
# and avoiding it is cheap. It increases the PSNR of images in bfloat16 against float32 by 4 dB.
COARSE = 16


class EqualLinear(nn.Module):
    """Equalised linear layer; `lr_multiplier` scales its learning rate (0.01 in StyleGAN's mapping network)."""

    def __init__(
        self, inputs: int, outputs: int, bias: float = 0.0, lr_multiplier: float = 1.0, activate: bool = False
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), float(bias)))
        self.scale = lr_multiplier / math.sqrt(inputs)
        self.lr_multiplier = lr_multiplier
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.weight * self.scale, self.bias * self.lr_multiplier)
        return F.leaky_relu(x, 0.2) * math.sqrt(2) if self.activate else x


class EqualConv2d(nn.Module):
    """Equalised convolution of the same output size, with `gain` on its output's standard deviation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, gain: float = 1.0, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = gain / math.sqrt(inputs * kernel * kernel)
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


def as_float(x: Tensor) -> Tensor:
    """Return x in float32, or unchanged if it is float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def pixel_norm(x: Tensor) -> Tensor:
    """Scale each position's feature vector (dimension 1) to a mean square of one."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


def resolutions_up_to(resolution: int) -> list[int]:
    """Return 4, 8, ... up to `resolution`.

    Raises:
        ValueError: `resolution` is not a power of two of at least 4.
    """
    if resolution < 4 or resolution & (resolution - 1):
        raise ValueError(f"resolution {resolution} is not a power of two of at least 4")
    return [2**power for power in range(2, resolution.bit_length())]
