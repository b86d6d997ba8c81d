"""Density and coverage (Naeem et al. 2020), in tiles that never hold all distances at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.runtime.errors import DataError

TILE_BYTES = 2**26


class DensityCoverage(NamedTuple):
    """Density, from 0, about 1 for equal distributions; and coverage, in [0, 1]."""

    density: float
    coverage: float


def density_and_coverage(
    reference: np.ndarray,
    features: np.ndarray,
    neighbours: int = 5,
    device: str | torch.device = "cpu",
    tile_bytes: int = TILE_BYTES,
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
        tile_bytes: largest size of one tile of distances.

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
    radii = _neighbour_distances(real, neighbours, tile_bytes)
    inside_balls = covered = 0
    for rows in _tiles(len(real), len(others), tile_bytes):
        inside = _squared_distances(real[rows], others) < radii[rows, None] - margin
        inside_balls += int(inside.sum())
        covered += int(inside.any(dim=1).sum())
    return DensityCoverage(inside_balls / (neighbours * len(others)), covered / len(real))


def _neighbour_distances(points: Tensor, neighbours: int, tile_bytes: int) -> Tensor:
    """Return each point's squared distance to the k-th nearest of the others, (m,)."""
    radii = torch.empty_like(points[:, 0])
    for rows in _tiles(len(points), len(points), tile_bytes):
        distances = _squared_distances(points[rows], points)
        distances.diagonal(offset=rows.start).fill_(torch.inf)  # a point is no neighbour of its own
        radii[rows] = distances.kthvalue(neighbours, dim=1).values
    return radii


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    norms = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)
    return norms.addmm_(a, b.T, alpha=-2)


def _tiles(rows: int, columns: int, tile_bytes: int) -> Iterator[slice]:
    """Cut the rows of a matrix of doubles into slices of at most `tile_bytes`, and of one row at least."""
    step = max(1, tile_bytes // (8 * columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
