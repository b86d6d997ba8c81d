"""How far an image lies from its reconstruction: masked L1 (paper Eq. 5) and perceptual distance."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline_lib.networks.distances import PerceptualDistance


def masked_l1(images: Tensor, reconstructions: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of |x - G(E(x, m))| over the known pixels of each image and their three channels (paper Eq. 5).

    The sum is divided by three times the number of known pixels, not of all pixels, so masks of different size
    compare; a distance lies in [0, 2].

    Args:
        images: x, (n, 3, H, W) in [-1, 1].
        reconstructions: of the same shape and range.
        mask: (n, 1, H, W), true or 1 where a pixel is known.

    Returns:
        Float (n,); NaN for an image without a known pixel.

    Raises:
        ValueError: the shapes do not fit.
    """
    _check_shapes(images, reconstructions, mask)
    known = mask.to(images.dtype)
    difference = (images - reconstructions).abs() * known
    return difference.sum(dim=(1, 2, 3)) / (images.shape[1] * known.sum(dim=(1, 2, 3)))


@torch.inference_mode()
def perceptual_distances(
    perceptual: PerceptualDistance, images: Tensor, reconstructions: Tensor, mask: Tensor | None = None, batch: int = 64
) -> Tensor:
    """Return the perceptual distance of each pair, float (n,), without gradients and a batch at a time.

    Args:
        perceptual: the network, on the images' device.
        images: (n, 3, H, W) in [-1, 1].
        reconstructions: of the same shape and range.
        mask: (n, 1, H, W), true or 1 where a pixel counts; the others are set to mid-grey in both images.
        batch: pairs at a time.

    Raises:
        ValueError: the shapes do not fit.
    """
    _check_shapes(images, reconstructions, mask)
    if mask is not None:
        images, reconstructions = images * mask, reconstructions * mask
    pairs = zip(images.split(batch), reconstructions.split(batch), strict=True)
    return torch.cat([perceptual(first, second) for first, second in pairs])


def _check_shapes(images: Tensor, reconstructions: Tensor, mask: Tensor | None) -> None:
    expected = (len(images), 1, *images.shape[2:])
    if images.shape != reconstructions.shape:
        raise ValueError(f"images of shape {tuple(images.shape)}, reconstructions of {tuple(reconstructions.shape)}")
    if mask is not None and mask.shape != expected:
        raise ValueError(f"a mask of shape {tuple(mask.shape)}; these images take {expected}")
