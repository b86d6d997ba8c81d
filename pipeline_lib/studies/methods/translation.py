"""Networks that make whole images of collages without a pretrained generator (paper 4.2), for small images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pipeline_lib.config import TranslationMethod
from pipeline_lib.networks.checkpoints import load_weights, register
from pipeline_lib.networks.segmenter import Segmenter

LEAST = 4  # pixels at which a layout generator starts
HIDDEN = 32  # channels between a layout and the scale and shift that it predicts


@register
class ResNetTranslator(nn.Module):
    """Two steps down, residual blocks and two steps up, with instance normalisation (Johnson 2016, Zhu 2017).

    Args:
        inputs: channels of the input, 3 for a collage and 4 for one with the mask of its known pixels.
        width: channels at full resolution.
        blocks: residual blocks at a quarter of the resolution.
    """

    architecture = "resnet-translator"

    def __init__(self, inputs: int, width: int = 32, blocks: int = 4):
        super().__init__()
        self.arguments = {"inputs": inputs, "width": width, "blocks": blocks}
        self.down = nn.Sequential(
            *_convolution(inputs, width, kernel=7),
            *_convolution(width, 2 * width, stride=2),
            *_convolution(2 * width, 4 * width, stride=2),
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(*_convolution(4 * width, 4 * width), *_convolution(4 * width, 4 * width)[:-1])
            for _ in range(blocks)
        )
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2),
            *_convolution(4 * width, 2 * width),
            nn.Upsample(scale_factor=2),
            *_convolution(2 * width, width),
            nn.Conv2d(width, 3, 7, padding=3, padding_mode="reflect"),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (n, inputs, H, W) to images (n, 3, H, W) in [-1, 1]; H and W are multiples of 4, of at least 16."""
        features = self.down(images)
        for block in self.blocks:
            features = features + block(features)
        return torch.tanh(self.up(features))

    def fill(self, masked: Tensor, known: Tensor) -> Tensor:
        """Map masked images (n, 3, H, W) and their known pixels (n, 1, H, W) to whole images."""
        return self(torch.cat([masked, known], dim=1))


@register
class LayoutGenerator(nn.Module):
    """Draws images from a layout of parts by spatially adaptive normalisation (Park et al. 2019, SPADE).

    Args:
        parts: names of the parts, in the order of their channels; one more channel marks unknown pixels.
        resolution: side of the images in pixels, a power of two.
        width: channels at full resolution; each halving of it doubles them, up to eight times as many.
    """

    architecture = "layout-generator"

    def __init__(self, parts: Sequence[str], resolution: int, width: int = 16):
        super().__init__()
        self.arguments = {"parts": list(parts), "resolution": resolution, "width": width}
        self.parts = list(parts)
        channels = len(parts) + 1
        widths = [width]
        while LEAST * 2 ** (len(widths) - 1) < resolution:
            widths.insert(0, min(8 * width, 2 * widths[0]))
        self.start = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            _LayoutBlock(before, after, channels)
            for before, after in zip((widths[0], *widths[:-1]), widths, strict=True)
        )
        self.head = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, layout: Tensor) -> Tensor:
        """Map layouts of `layout_of`, (n, parts + 1, H, W), to images (n, 3, H, W) in [-1, 1]."""
        features = self.start(F.interpolate(layout, size=(LEAST, LEAST)))
        for number, block in enumerate(self.blocks):
            if number:
                features = F.interpolate(features, scale_factor=2)
            features = block(features, layout)
        return torch.tanh(self.head(F.leaky_relu(features, 0.2)))


def layout_of(codes: Tensor, known: Tensor, parts: int) -> Tensor:
    """Return one channel for each part and one for unknown pixels, (n, parts + 1, H, W) of {0, 1}.

    Args:
        codes: part of each pixel, int64 (n, H, W).
        known: (n, 1, H, W), 1 where the part is known.
        parts: number of parts.
    """
    of_parts = F.one_hot(codes, parts).permute(0, 3, 1, 2).to(known)
    return torch.cat([of_parts * known, 1 - known], dim=1)


class PatchDiscriminator(nn.Module):
    """Scores overlapping patches of an image (Isola et al. 2017).

    Args:
        inputs: channels of the input.
        width: channels of the first layer.
    """

    def __init__(self, inputs: int, width: int = 32):
        super().__init__()
        self.layers = nn.ModuleList()
        for before, after, stride in ((inputs, width, 2), (width, 2 * width, 2), (2 * width, 4 * width, 1)):
            convolution = spectral_norm(nn.Conv2d(before, after, 4, stride, padding=1))
            self.layers.append(nn.Sequential(convolution, nn.LeakyReLU(0.2)))
        self.layers.append(spectral_norm(nn.Conv2d(4 * width, 1, 4, padding=1)))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features of each layer; the last are the scores of the patches, (n, 1, h, w)."""
        features = [images]
        for layer in self.layers:
            features.append(layer(features[-1]))
        return features[1:]


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, padding_mode="reflect", bias=False)
    return [convolution, nn.InstanceNorm2d(outputs, affine=True), nn.ReLU()]


class _LayoutBlock(nn.Module):
    """Two convolutions and a 1x1 skip, each after a normalisation by the layout."""

    def __init__(self, inputs: int, outputs: int, channels: int):
        super().__init__()
        self.norms = nn.ModuleList(_LayoutNorm(inputs, channels) for _ in range(3))
        self.conv1 = spectral_norm(nn.Conv2d(inputs, inputs, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.skip = spectral_norm(nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor, layout: Tensor) -> Tensor:
        layout = F.interpolate(layout, size=x.shape[-2:])
        y = self.conv1(F.leaky_relu(self.norms[0](x, layout), 0.2))
        y = self.conv2(F.leaky_relu(self.norms[1](y, layout), 0.2))
        return y + self.skip(self.norms[2](x, layout))


class _LayoutNorm(nn.Module):
    """Batch normalisation, then a scale and a shift for each pixel from the layout."""

    def __init__(self, width: int, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.shared = nn.Sequential(nn.Conv2d(channels, HIDDEN, 3, padding=1), nn.ReLU())
        self.scale, self.shift = (nn.Conv2d(HIDDEN, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, layout: Tensor) -> Tensor:
        hidden = self.shared(layout)
        return self.norm(x) * (1 + self.scale(hidden)) + self.shift(hidden)


def open_translation(
    method: TranslationMethod, model: Sequence[Path], device: torch.device
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function from collages (n, 3, H, W) and known pixels (n, 1, H, W) to whole images.

    cyclegan translates the collage, grey where it is unknown (Zhu et al. 2017). spade segments it, and draws an image
    from its parts alone (Park et al. 2019). inpainting-network keeps what is known, and fills the rest.

    Args:
        method: one of these.
        model: its weight file, and for spade that of the segmenter after it.
        device: where to compute.
    """
    if method == "spade":
        generator = load_weights(model[0], LayoutGenerator, device)
        segmenter = load_weights(model[1], Segmenter, device)
        own = [generator.parts.index(part) if part in generator.parts else 0 for part in segmenter.parts]
        codes = torch.tensor(own, device=device)
        return lambda collage, known: generator(layout_of(codes[segmenter(collage)], known, len(generator.parts)))
    translator = load_weights(model[0], ResNetTranslator, device)
    if method == "cyclegan":
        return lambda collage, known: translator(collage * known)
    return lambda collage, known: torch.where(known.bool(), collage, translator.fill(collage * known, known))
