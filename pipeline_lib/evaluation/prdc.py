"""Density and coverage (Naeem et al. 2020), computed in tiles so that memory stays bounded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.runtime.errors import DataError

# Sizes of one tile of distances that fits a processor's cache, and of one that occupies a GPU.
TILE_BYTES = {"cpu": 2**22, "cuda": 2**30}


class DensityCoverage(NamedTuple):
    """Density, at least 0 and about 1 for equal distributions, and coverage, in [0, 1]."""

    density: float
    coverage: float


def density_and_coverage(
    reference: np.ndarray,
    features: np.ndarray,
    neighbours: int = 5,
    device: str | torch.device = "cpu",
    tile_bytes: int | None = None,
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
        tile_bytes: largest size of one tile of distances; None chooses by device.

    Raises:
        DataError: there are too few images, or the feature sizes differ.
    """
    if reference.shape[1:] != features.shape[1:]:
        raise DataError(f"features of shapes {reference.shape} and {features.shape}; use the same extractor for both")
    if len(reference) <= neighbours or not len(features):
        raise DataError(
            f"{len(reference)} reference images and {len(features)} others; density and coverage with "
            f"{neighbours} neighbours need at least {neighbours + 1} and 1; add images or reduce `evaluate.neighbours`"
        )
    real = torch.as_tensor(reference, dtype=torch.float64, device=device)
    others = torch.as_tensor(features, dtype=torch.float64, device=device)
    center = real.mean(dim=0)  # small norms reduce the rounding error of scalar products
    real, others = real - center, others - center
    # Larger than the rounding error and smaller than differences of float32 features, so that ties stay outside.
    margin = 1e-12 * float(torch.cat([real, others]).square().sum(dim=1).max())
    side = max(1, math.isqrt((tile_bytes or TILE_BYTES[torch.device(device).type]) // 8))
    radii = _neighbour_distances(real, neighbours, side)
    inside_balls = torch.zeros((), dtype=torch.int64, device=device)
    covered = torch.zeros(len(real), dtype=torch.bool, device=device)
    for rows, columns in _tiles(len(real), len(others), side):
        inside = _squared_distances(real[rows], others[columns]) < radii[rows, None] - margin
        inside_balls += inside.sum()
        covered[rows] |= inside.any(dim=1)
    return DensityCoverage(int(inside_balls) / (neighbours * len(others)), int(covered.sum()) / len(real))


def _neighbour_distances(points: Tensor, neighbours: int, side: int) -> Tensor:
    """Return each point's squared distance to the k-th nearest of the others, (m,)."""
    nearest = torch.full((len(points), neighbours), torch.inf, dtype=points.dtype, device=points.device)
    for rows, columns in _tiles(len(points), len(points), side):
        distances = _squared_distances(points[rows], points[columns])
        if rows == columns:
            distances.fill_diagonal_(torch.inf)  # a point is not its own neighbour
        here = distances.topk(min(neighbours, distances.shape[1]), largest=False, sorted=False).values
        nearest[rows] = torch.cat([nearest[rows], here], dim=1).topk(neighbours, largest=False, sorted=False).values
    return nearest.amax(dim=1)


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    norms = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)
    return norms.addmm_(a, b.T, alpha=-2)


def _tiles(rows: int, columns: int, side: int) -> Iterator[tuple[slice, slice]]:
    """Split a matrix into tiles of `side` rows and columns; those at the edges may be smaller."""
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            yield slice(top, min(top + side, rows)), slice(left, min(left + side, columns))
