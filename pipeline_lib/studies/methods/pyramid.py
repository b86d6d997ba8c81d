"""A masked encoder that reads each style from its own place in a feature pyramid (Richardson et al. 2021, pSp)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.networks.checkpoints import register
from pipeline_lib.networks.encoder import ResNetEncoder

COARSE, MIDDLE = 3, 7  # first layers of the middle and of the fine styles, as published
CELLS = 4  # a head sees its level as a grid of that many cells on each side


@register
class PyramidEncoder(ResNetEncoder):
    """Coarse, middle and fine styles come from the last three stages of the ResNet, coarser ones added to finer ones.

    Each layer of W+ has a head of its own, which sees where in the image features are. The paper's encoder averages
    over all places instead. The published heads are chains of strided convolutions; these have one convolution and a
    linear layer, so that they fit images of any size.

    Args:
        latent_shape: (layers, style_dim) of W+.
        width: channels of the first stage.
        **others: as for `ResNetEncoder`.

    Raises:
        ValueError: the latent is not one of W+.
    """

    architecture = "pyramid-encoder"

    def __init__(self, latent_shape: Sequence[int], width: int = 64, **others: int | float | bool | None):
        if len(latent_shape) != 2:
            raise ValueError(f"a pyramid of styles needs W+, not a latent of shape {tuple(latent_shape)}")
        super().__init__(latent_shape, width, **others)
        del self.fc
        layers, style_dim = self.latent_shape
        channels = 4 * width
        self.lateral = nn.ModuleList(nn.Conv2d(factor * width, channels, 1) for factor in (8, 4, 2))
        self.heads = nn.ModuleList(_Head(channels, style_dim) for _ in range(layers))

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        _, fine, middle, coarse = self.features(images, mask)
        levels, above = [], None
        for lateral, features in zip(self.lateral, (coarse, middle, fine), strict=True):
            level = lateral(features)
            if above is not None:
                level = level + F.interpolate(above, size=level.shape[2:], mode="bilinear", align_corners=False)
            levels.append(level)
            above = level
        return torch.stack([head(levels[_level_of(layer)]) for layer, head in enumerate(self.heads)], dim=1)

    @torch.no_grad()
    def start_from(self, latent: Tensor) -> None:
        for head, style in zip(self.heads, latent.expand(self.latent_shape), strict=True):
            head.linear.weight.mul_(0.1)
            head.linear.bias.copy_(style)


def _level_of(layer: int) -> int:
    """Return the level of a layer of W+, 0 for coarse styles."""
    return int(layer >= COARSE) + int(layer >= MIDDLE)


class _Head(nn.Module):
    def __init__(self, channels: int, style_dim: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.linear = nn.Linear(channels * CELLS**2, style_dim)

    def forward(self, level: Tensor) -> Tensor:
        seen = F.adaptive_avg_pool2d(F.leaky_relu(self.conv(level), 0.2), CELLS)
        with torch.autocast(level.device.type, enabled=False):  # latents in full precision
            return self.linear(seen.float().flatten(1))
