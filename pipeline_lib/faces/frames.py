"""Squares of a photograph in which every face has the same place, from its landmarks."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pipeline_lib.faces.square import Square

#: Landmarks around each eye and of the corners of the mouth, on the face's own right and left.
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
RIGHT_CORNER, LEFT_CORNER = 61, 291


def ffhq_square(points: np.ndarray) -> Square:
    """Return the crop that FFHQ and CelebA-HQ have of a face (Karras et al. 2018, appendix C; 2019).

    Its axis is the mean of the line between the eyes and of the line from mouth to eyes, turned by a quarter. Its half
    side is twice the distance of the eyes, or 1.8 times that of eyes and mouth, whichever is more. Its centre lies
    below the eyes by a tenth of the latter.

    Args:
        points: landmarks (468, 2) in pixels of the photograph.
    """
    right, left = (points[list(eye)].mean(axis=0) for eye in (RIGHT_EYE, LEFT_EYE))
    between = left - right
    down = (points[RIGHT_CORNER] + points[LEFT_CORNER]) / 2 - (left + right) / 2
    axis = between + np.array([down[1], -down[0]])
    half = max(2.0 * math.hypot(*between), 1.8 * math.hypot(*down))
    return Square(*((left + right) / 2 + 0.1 * down), 2 * half, math.atan2(axis[1], axis[0]))


def tight_square(points: np.ndarray) -> Square:
    """Return a closer crop for detectors and regions: from the forehead to below the chin, 0.7 of FFHQ's side.

    Args:
        points: landmarks (468, 2) in pixels of the photograph.
    """
    wide = ffhq_square(points)
    right, left = (points[list(eye)].mean(axis=0) for eye in (RIGHT_EYE, LEFT_EYE))
    down = (points[RIGHT_CORNER] + points[LEFT_CORNER]) / 2 - (left + right) / 2
    return Square(*((left + right) / 2 + 0.6 * down), 0.7 * wide.side, wide.angle)


FRAMES: dict[str, Callable[[np.ndarray], Square]] = {
    "ffhq": ffhq_square,
    "celeba-hq": ffhq_square,
    "tight": tight_square,
}
