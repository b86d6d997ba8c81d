"""The masked encoder, a ResNet from an image and its mask to a latent (paper Eq. 3 and A.1.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # basic blocks of each stage, by depth
SMALL_BELOW = 150  # pixels; the published encoders of smaller images have smaller strides


class ResNetEncoder(nn.Module):
    """ResNet with four stages of basic blocks and the state-dict keys of torchvision.

    Args:
        latent_shape: shape of one latent, (z_dim,) for z and (layers, style_dim) for W+.
        width: channels of the first stage, 64 in the published networks.
        masked: whether the input has a mask channel (RGBM) or only the image (RGB).
        mask_offset: value subtracted from the mask; 0.5 gives {-0.5, 0.5} (ProGAN), 0 gives {0, 1} (StyleGAN2).
        small: stride 1 in the stem's max pool, for images under 150 pixels.
        depth: 18 (published for ProGAN) or 34 (published for StyleGAN2).
        resize: side in pixels to which images and masks are resized first, by area averaging; None does not resize.
    """

    architecture = "resnet-encoder"

    def __init__(
        self,
        latent_shape: Sequence[int],
        width: int = 64,
        masked: bool = True,
        mask_offset: float = 0.0,
        small: bool = False,
        depth: int = 18,
        resize: int | None = None,
    ):
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        self.masked, self.mask_offset, self.small, self.resize = masked, mask_offset, small, resize
        self.arguments = {
            "latent_shape": list(latent_shape),
            "width": width,
            "masked": masked,
            "mask_offset": mask_offset,
            "small": small,
            "depth": depth,
            "resize": resize,
        }
        self.conv1 = nn.Conv2d(4 if masked else 3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        for stage, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            first = _BasicBlock(inputs, outputs, stride=1 if stage == 1 else 2)
            others = [_BasicBlock(outputs, outputs) for _ in range(BLOCKS[depth][stage - 1] - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(first, *others))
        self.fc = nn.Linear(8 * width, math.prod(self.latent_shape))

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """Regress latents of shape (n, *latent_shape).

        Args:
            images: (n, 3, H, W) in [-1, 1]; unknown pixels are blanked here, so their values do not matter.
            mask: (n, 1, H, W), 1 for known pixels; None means that all pixels are known.

        Raises:
            ValueError: a mask was given to an encoder without a mask channel.
        """
        features = self.features(images, mask)[-1]
        with torch.autocast(features.device.type, enabled=False):  # latents in full precision
            return self.fc(features.float().mean(dim=(2, 3))).unflatten(1, self.latent_shape)

    @torch.no_grad()
    def start_from(self, latent: Tensor) -> None:
        """Let an untrained encoder predict nearly this latent, (style_dim,) or one of `latent_shape`, for any image."""
        self.fc.weight.mul_(0.1)
        self.fc.bias.copy_(latent.expand(self.latent_shape).flatten())

    def features(self, images: Tensor, mask: Tensor | None) -> list[Tensor]:
        """Return the output of each of the four stages, for the arguments of a call."""
        if self.masked:
            mask = torch.ones_like(images[:, :1]) if mask is None else mask.to(images.dtype)
            images = torch.cat([images * mask, mask - self.mask_offset], dim=1)
        elif mask is not None:
            raise ValueError("this encoder was trained without masks (RGB); train one with mask.kind: random")
        if self.resize:
            images = F.interpolate(images, size=(self.resize, self.resize), mode="area")
        x = F.relu(self.bn1(self.conv1(images.contiguous(memory_format=torch.channels_last))))
        x = F.max_pool2d(x, 3, stride=1 if self.small else 2, padding=1)
        found = []
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
            found.append(x)
        return found


# torch 2.14 on a CPU writes out of bounds in the backward pass of a strided 1x1 convolution with fewer channels than
# this (observed with 4 and 8, at 64 pixels). Subsampling first gives the same convolution without a stride.
LEAST_STRIDED = 16


class _BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self._skip = stride if inputs < LEAST_STRIDED else 1
        if stride != 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride // self._skip, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(outputs))
        else:
            self.downsample = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        shortcut = x if self._skip == 1 else x[..., :: self._skip, :: self._skip]
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(shortcut))
