"""Density and coverage (Naeem et al. 2020), in float64 and some rows at a time so that memory stays bounded."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.runtime.errors import DataError

TILE = 2**23  # distances that are computed at a time
SLACK = 1e-13  # of a squared distance, by the norms of its points: above its rounding error, so that ties stay outside


class DensityCoverage(NamedTuple):
    """Density, at least 0 and about 1 for equal distributions, and coverage, in [0, 1]."""

    density: float
    coverage: float


def density_and_coverage(
    reference: np.ndarray,
    features: np.ndarray,
    neighbours: int = 5,
    device: str | torch.device = "cpu",
    tile: int = TILE,
) -> DensityCoverage:
    """Measure density and coverage of a set of images with respect to real ones.

    The ball of a real image is open, with the distance to its k-th nearest neighbour among the other real images as
    radius. Density is the mean number of balls that contain an image of the set, divided by k. Coverage is the share of
    balls that contain an image of the set.

    Args:
        reference: (m, d), features of real images.
        features: (n, d), features of the set to evaluate.
        neighbours: k.
        device: where to compute.
        tile: number of distances that are computed at a time, if one row of them has no more.

    Raises:
        DataError: there are too few images, or the feature sizes differ.
    """
    if reference.shape[1:] != features.shape[1:]:
        raise DataError(f"features of shapes {reference.shape} and {features.shape}; use the same extractor for both")
    if len(reference) <= neighbours or not len(features):
        raise DataError(
            f"{len(reference)} reference images and {len(features)} others; density and coverage with "
            f"{neighbours} neighbours need at least {neighbours + 1} and 1; add images"
        )
    real, others = (torch.as_tensor(rows).to(device, torch.float64) for rows in (reference, features))
    center = real.mean(dim=0)  # small norms, small errors
    real, others = real - center, others - center
    inside_balls = covered = 0
    for rows in real.split(max(1, tile // max(len(real), len(others)))):
        radii = _squared_distances(rows, real).kthvalue(neighbours + 1, dim=1).values  # the nearest is the point itself
        inside = _squared_distances(rows, others, SLACK) < radii[:, None]
        inside_balls += int(inside.sum())
        covered += int(inside.any(dim=1).sum())
    return DensityCoverage(inside_balls / (neighbours * len(others)), covered / len(real))


def _squared_distances(a: Tensor, b: Tensor, slack: float = 0.0) -> Tensor:
    """Return squared distances (m, n) of points (m, d) and (n, d), larger by a share of their squared norms."""
    squares = (1 + slack) * (a.square().sum(dim=1)[:, None] + b.square().sum(dim=1))
    return squares.addmm_(a, b.T, alpha=-2)
