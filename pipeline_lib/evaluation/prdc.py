"""Density and coverage (Naeem et al. 2020), in tiles that never hold all distances at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.runtime.errors import DataError

# Of one tile of distances: a tile that a processor's cache holds, and one that keeps a GPU busy.
TILE_BYTES = {"cpu": 2**22, "cuda": 2**30}


class DensityCoverage(NamedTuple):
    """Density, from 0, about 1 for equal distributions; and coverage, in [0, 1]."""

    density: float
    coverage: float


def density_and_coverage(
    reference: np.ndarray,
    features: np.ndarray,
    neighbours: int = 5,
    device: str | torch.device = "cpu",
    tile_bytes: int | None = None,
) -> DensityCoverage:
    """Measure how densely and how widely a set of images falls among real ones.

    A real image's ball reaches to the nearest of its k-th neighbours among the other real images, its border left out.
    Density is the mean number of balls that an image of the set lies in, divided by k; coverage is the share of balls
    with an image of the set inside.

    Args:
        reference: (m, d), features of real images.
        features: (n, d), features of the set to measure.
        neighbours: k.
        device: where to compute.
        tile_bytes: largest size of one tile of distances; None: as suits the device.

    Raises:
        DataError: too few images, or the sets' features differ in size.
    """
    if reference.shape[1:] != features.shape[1:]:
        raise DataError(f"features of shapes {reference.shape} and {features.shape}; take both from one extractor")
    if len(reference) <= neighbours or not len(features):
        raise DataError(
            f"{len(reference)} reference images and {len(features)} others; density and coverage with "
            f"{neighbours} neighbours need at least {neighbours + 1} and 1: add images or lower `evaluate.neighbours`"
        )
    real = torch.as_tensor(reference, dtype=torch.float64, device=device)
    others = torch.as_tensor(features, dtype=torch.float64, device=device)
    center = real.mean(dim=0)  # small norms keep the rounding of scalar products small
    real, others = real - center, others - center
    # Beyond all rounding and below all differences of float32 features: what ties stays a tie, outside the ball.
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
            distances.fill_diagonal_(torch.inf)  # a point is no neighbour of its own
        here = distances.topk(min(neighbours, distances.shape[1]), largest=False, sorted=False).values
        nearest[rows] = torch.cat([nearest[rows], here], dim=1).topk(neighbours, largest=False, sorted=False).values
    return nearest.amax(dim=1)


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    norms = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)
    return norms.addmm_(a, b.T, alpha=-2)


def _tiles(rows: int, columns: int, side: int) -> Iterator[tuple[slice, slice]]:
    """Cut a matrix into tiles of `side` rows and columns, those at the edges perhaps smaller."""
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            yield slice(top, min(top + side, rows)), slice(left, min(left + side, columns))
