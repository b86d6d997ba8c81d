"""Random masks for training (paper 3.2, A.1.1) and masks of the regions that an edit replaces."""

from __future__ import annotations

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline_lib.config import BoxRegion, MaskSampling
from pipeline_lib.runtime.errors import DataError

CELLS = 6  # side of the coarse grid


def random_masks(settings: MaskSampling, count: int, resolution: int, random: torch.Generator) -> Tensor:
    """Draw masks (count, 1, resolution, resolution), 1 for known pixels, on the device of `random`.

    Uniform noise on a coarse grid is upsampled bilinearly and thresholded at t ~ U(least, 1), drawn for each image. As
    in the published code, pixels with noise below t are known; in the paper's Eq. 11 it is those above.
    """
    place = {"generator": random, "device": random.device}
    noise = torch.rand(count, 1, CELLS, CELLS, **place)
    threshold = settings.least + (1 - settings.least) * torch.rand(count, 1, 1, 1, **place)
    noise = F.interpolate(noise, size=(resolution, resolution), mode="bilinear", align_corners=False)
    return (noise < threshold).float()


def grow(mask: Tensor, pixels: int) -> Tensor:
    """Dilate masks (n, 1, H, W) of {0, 1} by a square neighbourhood of `pixels` on each side.

    Rows and columns are dilated one after the other, several times as fast on a CPU as `max_pool2d`.
    """
    for dim, padding in ((2, (0, 0, pixels, pixels)), (3, (pixels, pixels))):
        padded, size = F.pad(mask, padding), mask.shape[dim]
        mask = reduce(torch.maximum, [padded.narrow(dim, shift, size) for shift in range(2 * pixels + 1)])
    return mask


def window_of(mask: Tensor, margin: int) -> tuple[slice, ...]:
    """Return the rectangle around all masks of a batch (n, 1, H, W), with a margin in pixels, as an index into it.

    On a GPU it is the whole image, because to read the masks back would be to wait for all work before them.
    """
    if mask.device.type != "cpu":
        return (slice(None),) * 4
    seen = (mask > 0).flatten(0, 1).any(dim=0)
    extents = (seen.any(dim=other).nonzero().flatten().tolist() for other in (1, 0))
    bounds = ((at[0], at[-1]) if at else (0, -1) for at in extents)
    return (slice(None), slice(None), *(slice(max(0, first - margin), last + 1 + margin) for first, last in bounds))


def box_mask(region: BoxRegion, resolution: int) -> Tensor:
    """Return the box as a mask (1, 1, resolution, resolution), 1 inside.

    Raises:
        DataError: the box contains no pixel at this resolution.
    """
    top, bottom, left, right = (
        round(share * resolution) for share in (region.top, region.bottom, region.left, region.right)
    )
    mask = torch.zeros(1, 1, resolution, resolution)
    mask[..., top:bottom, left:right] = 1
    if not mask.any():
        raise DataError(f"rebalance.edit.region: the box contains no pixel at a resolution of {resolution}; enlarge it")
    return mask


def unpack_masks(packed: torch.Tensor, resolution: int) -> torch.Tensor:
    """Turn rows of packed bits, uint8 (n, bytes), into masks (n, 1, resolution, resolution) of {0, 1}."""
    places = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)  # the first pixel is the highest bit
    bits = (packed[:, :, None] >> places) & 1
    return bits.flatten(1)[:, : resolution**2].reshape(-1, 1, resolution, resolution).float()
