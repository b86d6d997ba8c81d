"""Pixelwise distances between images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline_lib.imaging.masks import grow, window_of


def masked_l1(images: Tensor, reconstructions: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of |x - G(E(x, m))| over the known pixels of each image and their three channels (paper Eq. 5).

    The sum is divided by three times the number of known pixels, not of all pixels, so that masks of different size
    are comparable. A distance is in [0, 2].

    Args:
        images: x, (n, 3, H, W) in [-1, 1].
        reconstructions: of the same shape and range.
        mask: (n, 1, H, W), true or 1 for known pixels.

    Returns:
        Float (n,); NaN for an image without a known pixel.

    Raises:
        ValueError: the shapes do not match.
    """
    check_pairs(images, reconstructions, mask)
    known = mask.to(images.dtype)
    difference = (images - reconstructions).abs() * known
    return difference.sum(dim=(1, 2, 3)) / (images.shape[1] * known.sum(dim=(1, 2, 3)))


def seam(context: Tensor, donor: Tensor, region: Tensor, width: int) -> Tensor:
    """Return how far two images differ where one is to be joined to the other, as a root mean square.

    Args:
        context: (n, 3, H, W) in [-1, 1].
        donor: of the same shape and range.
        region: masks (n, 1, H, W) of {0, 1} of what is taken from the donor.
        width: pixels around the region that are compared.

    Returns:
        Float (n,) in [0, 2]; 0 for an image without such pixels.
    """
    window = window_of(region, width)
    rim = grow(region[window], width) - region[window]
    difference = (context[window] - donor[window]).square().mean(dim=1, keepdim=True) * rim
    return (difference.sum(dim=(1, 2, 3)) / rim.sum(dim=(1, 2, 3)).clamp(min=1)).sqrt()


def check_pairs(images: Tensor, reconstructions: Tensor, mask: Tensor | None) -> None:
    expected = (len(images), 1, *images.shape[2:])
    if images.shape != reconstructions.shape:
        raise ValueError(f"images of shape {tuple(images.shape)}, reconstructions of {tuple(reconstructions.shape)}")
    if mask is not None and mask.shape != expected:
        raise ValueError(f"a mask of shape {tuple(mask.shape)}; these images need {expected}")


def peak_signal_to_noise(images: Tensor, reference: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of a batch of images in [-1, 1], computed over the whole batch."""
    return float(10 * torch.log10(4 / F.mse_loss(images.double(), reference.double()).clamp(min=1e-12)))
