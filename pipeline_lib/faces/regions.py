"""Regions of a face from its landmarks: the hull of what a region's name means, with a margin."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy.spatial import ConvexHull

from pipeline_lib.faces.frames import LEFT_EYE, RIGHT_EYE

LIPS = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
    *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191),
)
#: From below the nose along the folds beside the mouth to the chin.
AROUND_MOUTH = (2, 97, 98, 206, 216, 212, 202, 204, 194, 201, 200, 421, 418, 424, 422, 432, 436, 426, 327, 326)
BROWS = (
    *(46, 53, 52, 65, 55, 70, 63, 105, 66, 107),
    *(276, 283, 282, 295, 285, 300, 293, 334, 296, 336),
)
NOSE = (168, 6, 197, 195, 5, 4, 1, 19, 94, 2, 98, 97, 326, 327, 129, 358, 48, 278, 115, 344, 220, 440, 122, 351)
JAW = (
    *(93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323),
    *(50, 280, 205, 425),
)
#: Landmarks that a smile, an open mouth or closed eyes hardly move: nose, forehead, temples, corners of the eyes.
STABLE = (6, 168, 197, 195, 5, 4, 1, 33, 133, 362, 263, 127, 356, 234, 454, 10, 151, 9, 8, 109, 338, 54, 284)

REGIONS: dict[str, tuple[int, ...]] = {
    "mouth": (*LIPS, *AROUND_MOUTH),
    "lips": LIPS,
    "eyes": (*RIGHT_EYE, *LEFT_EYE),
    "brows": BROWS,
    "nose": NOSE,
    "lower-face": (*LIPS, *AROUND_MOUTH, *JAW),
}
SCALE = 4  # of a mask while it is drawn, so that its edge lies within a quarter of a pixel


def region_mask(points: np.ndarray, name: str, side: int) -> np.ndarray:
    """Return where a region is, bool (side, side), as the convex hull of its landmarks.

    Args:
        points: landmarks (468, 2) in shares of the square image's side.
        name: a key of `REGIONS`.
        side: side of the image in pixels.
    """
    own = points[list(REGIONS[name])].astype(np.float64)
    hull = own[ConvexHull(own).vertices] * side * SCALE
    canvas = Image.new("L", (side * SCALE, side * SCALE))
    ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in hull], fill=255)
    return np.asarray(canvas.reduce(SCALE)) >= 128


def affine_between(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the affine map (2, 3) that takes the stable landmarks of one face to those of another, in least squares.

    Args:
        source: landmarks (468, 2) of the face that is moved.
        target: those of the face that it is moved to.
    """
    chosen = list(STABLE)
    known = np.concatenate([source[chosen], np.ones((len(chosen), 1))], axis=1)
    solved, *_ = np.linalg.lstsq(known, target[chosen], rcond=None)
    return solved.T
