"""Squares of a picture, which may be turned."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Square(NamedTuple):
    """A square of a picture, which may be turned: its centre and side in pixels, and its angle in radians."""

    x: float
    y: float
    side: float
    angle: float = 0.0

    def grid(self, side: int) -> np.ndarray:
        """Return where each pixel of an image of `side` pixels lies in the picture, (side, side, 2)."""
        across = ((np.arange(side) + 0.5) / side - 0.5) * self.side
        u, v = np.meshgrid(across, across)
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.stack([self.x + u * cos - v * sin, self.y + u * sin + v * cos], axis=-1)

    def from_picture(self, points: np.ndarray) -> np.ndarray:
        """Return where points (..., 2) of the picture lie in the square, in shares of its side."""
        x, y = points[..., 0] - self.x, points[..., 1] - self.y
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.stack([x * cos + y * sin, y * cos - x * sin], axis=-1) / self.side + 0.5

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Return where points (..., 2) of the square, in shares of its side, lie in the picture."""
        u, v = ((points[..., axis] - 0.5) * self.side for axis in (0, 1))
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.stack([self.x + u * cos - v * sin, self.y + u * sin + v * cos], axis=-1)
