"""The truth of an edited face: its closest clean rendering, and the ideal edit."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log10
from typing import NamedTuple

import numpy as np

from pipeline_lib.data.avatars.drawing import Renderings
from pipeline_lib.data.avatars.faces import Face, variants_of


class Shown(NamedTuple):
    """What an edited image shows by its closest clean rendering, and how far it is from that.

    PSNRs to that rendering, of the whole image and inside the region, are in dB, and infinite for identical pixels.
    """

    closest: str
    attributes: dict[str, bool]
    identical_outside: bool
    psnr_ideal: float
    psnr_inside: float


def closest_rendering(original: np.ndarray, image: np.ndarray, region: np.ndarray, renderings: Renderings) -> Shown:
    """Compare an image with every rendering of its face inside the region; of equally close ones the first counts.

    Args:
        original: the image before the edit, uint8 (H, W, 3).
        image: the image after it.
        region: bool (H, W), where the edit may differ from the original.
        renderings: of the same face.
    """
    inside = _squared_errors(image, renderings.images, region)
    best = int(np.argmin(inside))
    (whole,) = _squared_errors(image, renderings.images[best : best + 1], np.ones_like(region))
    return Shown(
        renderings.names[best],
        renderings.attributes[best],
        bool((image == original)[~region].all()),
        _psnr(whole),
        _psnr(inside[best]),
    )


def ideal_edit(face: Face, exchanged: Sequence[str], closest: str, attribute: str, wanted: bool) -> Face:
    """Return what an edit without any flaw would have shown.

    That is its closest clean rendering or, where the edit failed, the first variant of the face with the wanted value.

    Args:
        face: the face before the edit.
        exchanged: names of the edited parts.
        closest: name of the variant that the edited image is closest to.
        attribute: what was edited.
        wanted: the value aimed at.
    """
    variants = variants_of(face, exchanged)
    return next(variants[name] for name in (closest, *variants) if variants[name].attributes[attribute] == wanted)


def squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the squared Euclidean distances of rows (n, d) from rows (m, d), (n, m), in their precision."""
    squares = [np.square(rows).sum(axis=1) for rows in (first, second)]
    return np.maximum(squares[0][:, None] + squares[1] - 2 * (first @ second.T), 0)


def _squared_errors(image: np.ndarray, references: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return mean squared errors of an image (H, W, 3) over a mask (H, W) to references (m, H, W, 3), (m,)."""
    rows = [pixels[:, where].reshape(len(pixels), -1).astype(np.float64) for pixels in (image[None], references)]
    return squared_distances(*rows)[0] / max(1, rows[0].shape[1])  # sums of squares of uint8 are exact in float64


def _psnr(squared_error: float) -> float:
    return 10 * log10(255**2 / squared_error) if squared_error else inf
