"""A residual discriminator that supports progressive growing and a local discriminator for one square."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.networks.layers import EqualConv2d, EqualLinear, resolutions_up_to

DEVIATION_GROUP = 4  # images whose standard deviation is taken together


class Discriminator(nn.Module):
    """Residual blocks down to 4 pixels, minibatch standard deviation, and a head in float32.

    Args:
        resolution: side of the images in pixels, a power of two.
        channels: feature channels of each resolution from 4 pixels on, as in the generator.
        local: arguments of `add_local`, if there is a local discriminator.
    """

    architecture = "residual-discriminator"

    def __init__(self, resolution: int, channels: Sequence[int], local: dict[str, Any] | None = None):
        super().__init__()
        self.resolution = resolution
        self.arguments: dict[str, Any] = {"resolution": resolution, "channels": list(channels)}
        self.local: Discriminator | None = None
        widths = dict(zip(resolutions_up_to(resolution), channels, strict=True))
        self.from_rgb = nn.ModuleDict({str(r): EqualConv2d(3, c, 1, gain=math.sqrt(2)) for r, c in widths.items()})
        self.blocks = nn.ModuleDict({str(r): _Block(c, widths[r // 2]) for r, c in widths.items() if r > 4})
        self.final_conv = EqualConv2d(widths[4] + 1, widths[4], 3, gain=math.sqrt(2))
        self.final_linear = EqualLinear(widths[4] * 16, widths[4], activate=True)
        self.score = EqualLinear(widths[4], 1)
        if local is not None:
            self.add_local(**local)

    def add_local(self, top: float, left: float, side: float, channels: Sequence[int]) -> None:
        """Add a local discriminator with its own score for one square of the image (Iizuka et al. 2017).

        A part of a few pixels, such as a mouth, has little weight in the score of the whole image.

        Args:
            top: upper edge of the square as a share of the image's side.
            left: left edge, likewise.
            side: side of the square, likewise; in a 64-pixel image the square must be 4, 8, 16 or 32 pixels wide.
            channels: feature channels from 4 pixels to the square's resolution.
        """
        self.arguments["local"] = {"top": top, "left": left, "side": side, "channels": list(channels)}
        self.local = Discriminator(round(side * self.resolution), channels)

    def forward(self, images: Tensor, fade: float = 1.0) -> Tensor:
        """Score images of shape (n, 3, r, r) at any resolution r of the network.

        Args:
            images: real or generated images.
            fade: weight of the newest block, which rises from 0 to 1 in progressive growing.

        Returns:
            Logits (n, 1), or (n, 2) with a local discriminator.
        """
        score = self._score(images, fade)
        if self.local is None:
            return score
        return torch.cat([score, self.local(self._square(images), fade)], dim=1)

    def _square(self, images: Tensor) -> Tensor:
        place = self.arguments["local"]
        top, left, side = (round(place[name] * images.shape[-1]) for name in ("top", "left", "side"))
        return images[:, :, top : top + side, left : left + side]

    def _score(self, images: Tensor, fade: float) -> Tensor:
        size = images.shape[-1]
        features = F.leaky_relu(self.from_rgb[str(size)](images), 0.2)
        for r in reversed(resolutions_up_to(size)[1:]):
            features = self.blocks[str(r)](features)
            if r == size and fade < 1.0:
                coarse = F.leaky_relu(self.from_rgb[str(r // 2)](F.avg_pool2d(images, 2)), 0.2)
                features = fade * features + (1 - fade) * coarse
        with torch.autocast(features.device.type, enabled=False):
            features = minibatch_standard_deviation(features.float())
            features = F.leaky_relu(self.final_conv(features), 0.2)
            return self.score(self.final_linear(features.flatten(1)))


class _Block(nn.Module):
    """Two 3x3 convolutions, the second after an average pool, and a 1x1 skip; both scaled by sqrt(1/2)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = EqualConv2d(inputs, inputs, 3, gain=math.sqrt(2))
        self.conv2 = EqualConv2d(inputs, outputs, 3, gain=math.sqrt(2))
        self.skip = EqualConv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.avg_pool2d(F.leaky_relu(self.conv1(x), 0.2), 2)
        y = F.leaky_relu(self.conv2(y), 0.2)
        return (y + self.skip(F.avg_pool2d(x, 2))) * math.sqrt(0.5)


def minibatch_standard_deviation(x: Tensor, group: int = DEVIATION_GROUP) -> Tensor:
    """Append a channel with the mean standard deviation over groups of images (Karras et al. 2018, section 3)."""
    n, _, height, width = x.shape
    group = math.gcd(n, group)
    grouped = x.reshape(group, n // group, -1)
    variance = (grouped - grouped.mean(dim=0)).square().mean(dim=0)  # torch.var is twenty times slower on a CPU
    spread = torch.sqrt(variance + 1e-8).mean(dim=1)
    return torch.cat([x, spread.repeat(group)[:, None, None, None].expand(n, 1, height, width)], dim=1)
