"""Density and coverage (Naeem et al. 2020), computed in tiles so that memory stays bounded.

Distances are computed in float32, which most GPUs do 64 times as fast as float64. Where their rounding error could
change a comparison, the pair is computed again in float64, so that the result is that of float64.
"""

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
SPARE = 3  # neighbours beyond the k-th that are computed again in float64
UNIT = 2.0**-24  # largest relative rounding error in float32
TIE = 1e-12  # relative difference of squared distances that is rounding in float64, so that ties stay outside


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
            f"{neighbours} neighbours need at least {neighbours + 1} and 1; add images"
        )
    center = torch.as_tensor(reference).mean(dim=0, dtype=torch.float64).to(device)  # small norms, small errors
    real, others = (_Points(rows, center, device) for rows in (reference, features))
    size = tile_bytes or TILE_BYTES[torch.device(device).type]
    limits = _squared_radii(real, neighbours, size) * (1 - TIE)
    inside_balls = torch.zeros((), dtype=torch.int64, device=device)
    covered = torch.zeros(len(real), dtype=torch.bool, device=device)
    for rows, columns in _tiles(len(real), len(others), size):
        inside = _nearer(real, others, rows, columns, limits[rows], size)
        inside_balls += inside.sum()
        covered[rows] |= inside.any(dim=1)
    return DensityCoverage(int(inside_balls) / (neighbours * len(others)), int(covered.sum()) / len(real))


class _Points:
    """Features as given, and relative to a center in float32 with their norms; (n, d) each."""

    def __init__(self, features: np.ndarray, center: Tensor, device: str | torch.device):
        self.given = torch.as_tensor(features, device=device)
        self.centered = (self.given.double() - center).float()
        self.squares = self.centered.square().sum(dim=1)
        self.longest = float(self.squares.max()) ** 0.5

    def __len__(self) -> int:
        return len(self.given)

    def error_to(self, others: _Points, rows: slice) -> Tensor:
        """Bound the rounding error of squared distances in float32, (rows,).

        A scalar product of d terms is off by d units of |a||b| at most (Higham 2002, section 3.1); the rest are the
        roundings of inputs, sums and limits.
        """
        return (self.given.shape[1] + 16) * UNIT * (self.squares[rows].double().sqrt() + others.longest) ** 2


def _nearer(points: _Points, others: _Points, rows: slice, columns: slice, limits: Tensor, tile_bytes: int) -> Tensor:
    """Return whether squared distances are below the limit of their row, bool (rows, columns)."""
    distances = _squared_distances(points, others, rows, columns)
    error = points.error_to(others, rows)
    nearer = distances < (limits - error).float()[:, None]
    unsure = (distances < (limits + error).float()[:, None]) & ~nearer
    first, second = unsure.nonzero(as_tuple=True)
    if 8 * len(first) > unsure.numel():
        return _exact_tile(points, others, rows, columns) < limits[:, None]
    at_once = max(1, tile_bytes // (8 * points.given.shape[1]))
    for a, b in zip(first.split(at_once), second.split(at_once), strict=True):
        exact = _exact_pairs(points.given[a + rows.start], others.given[b + columns.start])
        nearer[a, b] = exact < limits[a]
    return nearer


def _squared_radii(points: _Points, neighbours: int, tile_bytes: int) -> Tensor:
    """Return each point's squared distance to the k-th nearest of the others, float64 (m,)."""
    device, count = points.given.device, min(neighbours + SPARE, len(points) - 1)
    nearest = torch.full((len(points), count), torch.inf, device=device)
    which = torch.zeros((len(points), count), dtype=torch.int64, device=device)
    for rows, columns in _tiles(len(points), len(points), tile_bytes):
        distances = _squared_distances(points, points, rows, columns)
        if rows == columns:
            distances.fill_diagonal_(torch.inf)  # a point is not its own neighbour
        here = distances.topk(min(count, distances.shape[1]), largest=False, sorted=False)
        found = torch.cat([nearest[rows], here.values], dim=1)
        of_points = torch.cat([which[rows], here.indices + columns.start], dim=1)
        nearest[rows], kept = found.topk(count, largest=False, sorted=False)
        which[rows] = of_points.gather(1, kept)
    radii = torch.empty(len(points), dtype=torch.float64, device=device)
    at_once = max(1, tile_bytes // (8 * count * points.given.shape[1]))
    for start in range(0, len(points), at_once):
        rows = slice(start, start + at_once)
        exact = _exact_pairs(points.given[rows, None], points.given[which[rows]])
        radii[rows] = exact.kthvalue(neighbours, dim=1).values
    # a point left out could be nearer by the rounding error
    unsure = radii > nearest.amax(dim=1) - points.error_to(points, slice(None))
    for rows in unsure.nonzero().flatten().split(max(1, tile_bytes // (8 * len(points)))):
        exact = _exact_tile(points, points, rows, slice(None))
        exact[torch.arange(len(rows), device=device), rows] = torch.inf
        radii[rows] = exact.kthvalue(neighbours, dim=1).values
    return radii


def _squared_distances(points: _Points, others: _Points, rows: slice, columns: slice) -> Tensor:
    """Return squared distances in float32, (rows, columns)."""
    squares = points.squares[rows, None] + others.squares[columns]
    return squares.addmm_(points.centered[rows], others.centered[columns].T, alpha=-2)


def _exact_tile(points: _Points, others: _Points, rows: slice | Tensor, columns: slice) -> Tensor:
    """Return squared distances in float64 by differences, (rows, columns), which is slow."""
    a, b = points.given[rows].double(), others.given[columns].double()
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square_()


def _exact_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Return squared distances of pairs in float64 by differences; both (..., d)."""
    return (a.double() - b.double()).square().sum(dim=-1)


def _tiles(rows: int, columns: int, tile_bytes: int) -> Iterator[tuple[slice, slice]]:
    """Split a matrix of float32 into square tiles of at most `tile_bytes`; those at the edges may be smaller."""
    side = max(1, math.isqrt(tile_bytes // 4))
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            yield slice(top, min(top + side, rows)), slice(left, min(left + side, columns))
