"""ProGAN's generator (Karras et al. 2018) with the state-dict keys of the published PyTorch conversion."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.networks.generator import Generator
from pipeline_lib.networks.layers import COARSE, as_float, pixel_norm, resolutions_up_to


class ProGANGenerator(Generator):
    """Two convolutions per resolution, each after pixel norm, with nearest upsampling between resolutions.

    Args:
        resolution: side of the images in pixels, a power of two.
        channels: feature channels of each resolution from 4 pixels on.
        z_dim: size of the latent.
        heads: resolutions with an RGB head, all for a growing network and only the last in published files.
    """

    architecture = "progan"

    def __init__(self, resolution: int, channels: Sequence[int], z_dim: int = 512, heads: Sequence[int] | None = None):
        sizes = resolutions_up_to(resolution)
        if len(channels) != len(sizes):
            raise ValueError(f"{len(channels)} channel counts for {len(sizes)} resolutions {sizes}")
        heads = list(sizes if heads is None else heads)
        super().__init__(
            resolution=resolution,
            z_dim=z_dim,
            latent_shape=(z_dim,),
            arguments={"resolution": resolution, "channels": list(channels), "z_dim": z_dim, "heads": heads},
        )
        width = z_dim
        for number, (size, outputs) in enumerate(zip(sizes, channels, strict=True)):
            first = _NormConv(width, outputs, kernel=4 if size == 4 else 3, padding=3 if size == 4 else 1)
            setattr(self, f"layer{2 * number + 1}", first)
            setattr(self, f"layer{2 * number + 2}", _NormConv(outputs, outputs, kernel=3, padding=1))
            if size in heads:
                setattr(self, f"output_{size}x{size}", _NormConv(outputs, 3, kernel=1, padding=0, activate=False))
            width = outputs

    def map_latents(self, z: Tensor) -> Tensor:
        return z

    def synthesize(self, latents: Tensor, resolution: int | None = None, fade: float = 1.0) -> Tensor:
        resolution = resolution or self.resolution
        features = latents[:, :, None, None]
        for number, size in enumerate(resolutions_up_to(resolution)):
            if size == resolution and fade < 1.0:
                coarse = self._head(size // 2)(features)
            features = self._block(number, size, features)
        image = self._head(resolution)(features)
        if fade < 1.0:
            image = fade * image + (1 - fade) * F.interpolate(coarse, scale_factor=2)
        return image

    def features_at(self, latents: Tensor, size: int) -> Tensor:
        """Return the features (n, channels, size, size) of the block at one resolution."""
        features = latents[:, :, None, None]
        for number, side in enumerate(resolutions_up_to(size)):
            features = self._block(number, side, features)
        return features

    def synthesize_from(self, features: Tensor, size: int) -> Tensor:
        """Generate images, without the final clamp, from the features of the block at one resolution."""
        for number, side in enumerate(resolutions_up_to(self.resolution)):
            if side > size:
                features = self._block(number, side, features)
        return self._head(self.resolution)(features)

    def _block(self, number: int, size: int, features: Tensor) -> Tensor:
        if size > COARSE:
            return self._layers(number, features)
        with torch.autocast(features.device.type, enabled=False):
            return self._layers(number, as_float(features))

    def _layers(self, number: int, features: Tensor) -> Tensor:
        first, second = (getattr(self, f"layer{2 * number + offset}") for offset in (1, 2))
        if number == 0:
            return second(first(features))
        features = F.interpolate(pixel_norm(features), scale_factor=2)
        return second(first(features, normalise=False))

    def _head(self, size: int) -> _NormConv:
        head = getattr(self, f"output_{size}x{size}", None)
        if head is None:
            raise ValueError(f"this generator has no RGB head at {size} pixels; it has {self.arguments['heads']}")
        return head


class _WScale(nn.Module):
    def __init__(self, outputs: int):
        super().__init__()
        self.b = nn.Parameter(torch.zeros(outputs))


class _NormConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int, activate: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False)
        nn.init.normal_(self.conv.weight)
        self.wscale = _WScale(outputs)
        self.scale = (math.sqrt(2) if activate else 1.0) / math.sqrt(inputs * kernel * kernel)
        self.activate = activate

    def forward(self, x: Tensor, normalise: bool = True) -> Tensor:
        x = pixel_norm(x) if normalise else x
        x = F.conv2d(x, self.conv.weight * self.scale, self.wscale.b, padding=self.conv.padding)
        return F.leaky_relu(x, 0.2) if self.activate else x
