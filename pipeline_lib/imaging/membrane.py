"""Membranes: values known around a region, spread smoothly into it (Laplace's equation, by cascadic multigrid)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline_lib.imaging.masks import window_of

STEPS = 10  # of conjugate gradients at full resolution; twice as many at half of it, and so on
COARSEST = 4  # pixels a side, below which the mean of what is known is the start


def spread_inwards(values: Tensor, inside: Tensor) -> Tensor:
    """Replace the pixels inside a region by the membrane that is fixed at the pixels around it.

    The membrane solves Laplace's equation, that is, each of its pixels is the mean of its four neighbours. Nothing
    flows over the border of the image. It is solved from coarse to fine: half the resolution gives the start, from
    which conjugate gradients go on (Bornemann and Deuflhard 1996). At 64 pixels it is exact to less than a grey level.

    Args:
        values: (n, c, H, W); what they are inside does not matter.
        inside: masks (n, 1, H, W) of {0, 1}, 1 where the membrane is wanted.

    Returns:
        (n, c, H, W), equal to `values` outside. An image that is all inside becomes 0.
    """
    return torch.where(inside.bool(), _solve(values * (1 - inside), inside, STEPS), values)


def _solve(known: Tensor, inside: Tensor, steps: int) -> Tensor:
    """Solve for the pixels inside, where `known` is 0."""
    height, width = known.shape[-2:]
    share = F.avg_pool2d(1 - inside, 2, ceil_mode=True)
    if min(height, width) <= COARSEST:
        start = known.sum(dim=(2, 3), keepdim=True) / (1 - inside).sum(dim=(2, 3), keepdim=True).clamp(min=1)
    else:
        coarse = F.avg_pool2d(known, 2, ceil_mode=True) / share.clamp(min=1e-6)
        solved = _solve(coarse, (share == 0).to(known), 2 * steps)
        start = F.interpolate(solved, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
    membrane, window = torch.where(inside.bool(), start, known), window_of(inside, margin=1)
    if inside.device.type == "cpu" and len(inside):
        steps = min(steps, int(inside.sum(dim=(1, 2, 3)).amax()))  # as many as there are unknowns are exact
    membrane[window] = _conjugate_gradients(membrane[window], inside[window], steps)
    return membrane


def _conjugate_gradients(membrane: Tensor, inside: Tensor, steps: int) -> Tensor:
    residual = inside * _laplacian(membrane)
    direction = residual
    energy = residual.square().sum(dim=(2, 3), keepdim=True)
    for _ in range(steps):
        bent = -inside * _laplacian(direction)
        step = energy / (direction * bent).sum(dim=(2, 3), keepdim=True).clamp(min=1e-20)
        membrane = membrane + step * direction
        residual = residual - step * bent
        before, energy = energy, residual.square().sum(dim=(2, 3), keepdim=True)
        direction = residual + energy / before.clamp(min=1e-20) * direction
    return membrane


def _laplacian(values: Tensor) -> Tensor:
    """Return the sum of the differences to the four neighbours (fewer at the border)."""
    down, right = values.diff(dim=2), values.diff(dim=3)
    return F.pad(down, (0, 0, 0, 1)) - F.pad(down, (0, 0, 1, 0)) + F.pad(right, (0, 1)) - F.pad(right, (1, 0))
