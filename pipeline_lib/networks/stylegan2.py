"""StyleGAN2's generator (Karras et al. 2020) with the state-dict keys of its common PyTorch conversion.

Modulation scales a shared convolution's input and demodulation its output, which is equivalent to one modulated kernel
per sample and needs no compiled extension. With `noise=False` and narrow `channels` the same class is the small
generator that this repository trains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.networks.generator import Generator
from pipeline_lib.networks.layers import COARSE, EqualLinear, as_float, pixel_norm, resolutions_up_to

SQRT2 = math.sqrt(2)


class StyleGAN2Generator(Generator):
    """Mapping network and synthesis network with RGB skip connections.

    Args:
        resolution: side of the images in pixels, a power of two.
        channels: feature channels of each resolution from 4 pixels on.
        style_dim: size of z and w.
        mapping_layers: depth of the mapping network.
        noise: whether layers add the noise in the buffers `noises.*`.
    """

    architecture = "stylegan2"

    def __init__(
        self,
        resolution: int,
        channels: Sequence[int],
        style_dim: int = 512,
        mapping_layers: int = 8,
        noise: bool = True,
    ):
        sizes = resolutions_up_to(resolution)
        if len(channels) != len(sizes):
            raise ValueError(f"{len(channels)} channel counts for {len(sizes)} resolutions {sizes}")
        super().__init__(
            resolution=resolution,
            z_dim=style_dim,
            latent_shape=(2 * len(sizes), style_dim),
            arguments={
                "resolution": resolution,
                "channels": list(channels),
                "style_dim": style_dim,
                "mapping_layers": mapping_layers,
                "noise": noise,
            },
        )
        mapping = [EqualLinear(style_dim, style_dim, lr_multiplier=0.01, activate=True) for _ in range(mapping_layers)]
        self.style = nn.Sequential(_PixelNorm(), *mapping)
        self.input = _Constant(channels[0])
        self.conv1 = _StyledConv(channels[0], channels[0], style_dim, noise=noise)
        self.to_rgb1 = _ToRGB(channels[0], style_dim)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for before, after in pairwise(channels):
            self.convs.append(_StyledConv(before, after, style_dim, upsample=True, noise=noise))
            self.convs.append(_StyledConv(after, after, style_dim, noise=noise))
            self.to_rgbs.append(_ToRGB(after, style_dim, upsample=True))
        self.noises = nn.Module()
        if noise:
            for layer in range(2 * len(sizes) - 1):
                side = 2 ** ((layer + 5) // 2)
                self.noises.register_buffer(f"noise_{layer}", torch.randn(1, 1, side, side))
        self.register_buffer("latent_avg", torch.zeros(style_dim))

    def map_latents(self, z: Tensor) -> Tensor:
        """Map z of shape (n, style_dim) to W+ latents of shape (n, layers, style_dim), the same w in every layer."""
        return self.style(z)[:, None].expand(-1, *self.latent_shape)

    def mapping_parameters(self) -> Iterator[nn.Parameter]:
        return self.style.parameters()

    def truncate(self, latents: Tensor, psi: float) -> Tensor:
        """Truncate latents towards the mean latent; psi 1 leaves them unchanged, psi 0 gives the mean."""
        return self.latent_avg + psi * (latents - self.latent_avg)

    def synthesize(self, latents: Tensor, resolution: int | None = None, fade: float = 1.0) -> Tensor:
        resolution = resolution or self.resolution
        noise = self._noise()
        features = self.conv1(self.input(len(latents)), latents[:, 0], noise[0])
        image = self.to_rgb1(features, latents[:, 1], None)
        for block, to_rgb in enumerate(self.to_rgbs):
            side = 8 * 2**block
            if side > resolution:
                break
            layer = 2 * block + 1
            features = self.convs[2 * block](features, latents[:, layer], noise[layer])
            features = self.convs[2 * block + 1](features, latents[:, layer + 1], noise[layer + 1])
            weight = fade if side == resolution else 1.0
            image = to_rgb(features, latents[:, layer + 2], image, weight)
        return image

    def _noise(self) -> list[Tensor | None]:
        buffers = dict(self.noises.named_buffers())
        return [buffers.get(f"noise_{layer}") for layer in range(self.latent_shape[0] - 1)]


class _PixelNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return pixel_norm(x)


class _Constant(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))

    def forward(self, batch: int) -> Tensor:
        return self.input.expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)


class _Blur(nn.Module):
    """The separable [1, 3, 3, 1] filter, with a gain of four after upsampling."""

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        kernel = torch.outer(taps, taps)
        self.register_buffer("kernel", 4 * kernel / kernel.sum())

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, 4, 4)
        return F.conv2d(x, kernel, padding=1, groups=x.shape[1])


class _Upsample(_Blur):
    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, 4, 4)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


class _ModulatedConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, style_dim: int, demodulate: bool, upsample: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, kernel, kernel))
        self.modulation = EqualLinear(style_dim, inputs, bias=1.0)
        self.scale = 1 / math.sqrt(inputs * kernel * kernel)
        self.demodulate = demodulate
        if upsample:
            self.blur = _Blur()
        self.upsample = upsample

    def forward(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features before demodulation and the demodulation factor (n, outputs, 1, 1), or None."""
        weight = self.weight[0] * self.scale
        factor = None
        with torch.autocast(w.device.type, enabled=False):  # cheap, and an error would affect a whole channel
            style = self.modulation(as_float(w))
            if self.demodulate:
                energy = style.square() @ weight.square().sum(dim=(2, 3)).T
                factor = torch.rsqrt(energy + 1e-8)[:, :, None, None]
        x = x * style[:, :, None, None].to(x.dtype)
        if self.upsample:
            return self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)), factor
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2), factor


class _AddNoise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class _Bias(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))


class _StyledConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, style_dim: int, upsample: bool = False, noise: bool = True):
        super().__init__()
        self.conv = _ModulatedConv(inputs, outputs, 3, style_dim, demodulate=True, upsample=upsample)
        if noise:
            self.noise = _AddNoise()
        self.activate = _Bias(outputs)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        if x.shape[-1] * (2 if self.conv.upsample else 1) > COARSE:
            return self._layer(x, w, noise)
        with torch.autocast(x.device.type, enabled=False):
            return self._layer(as_float(x), w, noise)

    def _layer(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        x, factor = self.conv(x, w)
        shift = self.activate.bias[:, None, None]
        if noise is not None:
            shift = shift + self.noise.weight * noise
        # The activation's gain is folded in, so that one pass over the features applies factor, bias and gain.
        factor, shift = (SQRT2 * factor).to(x.dtype), (SQRT2 * shift).to(x.dtype)
        return F.leaky_relu(torch.addcmul(shift, x, factor), 0.2)


class _ToRGB(nn.Module):
    def __init__(self, inputs: int, style_dim: int, upsample: bool = False):
        super().__init__()
        if upsample:
            self.upsample = _Upsample()
        self.conv = _ModulatedConv(inputs, 3, 1, style_dim, demodulate=False, upsample=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, w: Tensor, skip: Tensor | None, weight: float = 1.0) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # images are summed over all resolutions
            image = self.conv(as_float(x), w)[0] + self.bias
            return image if skip is None else weight * image + self.upsample(skip)
