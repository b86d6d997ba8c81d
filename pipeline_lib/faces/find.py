"""Faces in a photograph of any size: where they are, and their 468 landmarks in its pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline_lib.faces.networks import GRIDS, FaceDetector, FaceMesh, load_network
from pipeline_lib.faces.square import Square

LEAST_SCORE = 0.5  # of the detector, as in MediaPipe
LEAST_PRESENCE = 0.5  # of the mesh, likewise
OVERLAP = 0.3  # intersection over union from which two boxes are of one face, likewise
AROUND_BOX = 1.5  # side of the mesh's square in units of the face's box, likewise
MOST_INSIDE = 0.3  # share of a face's landmarks in the box of a larger one, above which they are one face
TILES = 3  # along each side of a picture, for faces too small to be found in the whole of it
TILE = 0.5  # side of a tile in units of the picture's longer side
RIGHT_EYE, LEFT_EYE = 33, 263  # landmarks of the outer corners, from which the mesh's square takes its angle


class Face(NamedTuple):
    """A face: its landmarks (468, 2), float32 in pixels from the picture's upper left corner, and how sure they are."""

    points: np.ndarray
    score: float  # of the detector, in [0, 1]
    presence: float  # of the mesh, in [0, 1]

    @property
    def size(self) -> float:
        """Longer side of the landmarks' box, in pixels."""
        return float(np.ptp(self.points, axis=0).max())


class FaceFinder:
    """Finds the faces of pictures, one after the other."""

    def __init__(self, device: torch.device):
        self._detector = load_network(FaceDetector, device)
        self._mesh = load_network(FaceMesh, device)
        self._anchors = _anchors().to(device)
        self._device = device

    @torch.no_grad()
    def __call__(self, pixels: np.ndarray) -> list[Face]:
        """Return the faces of a picture, uint8 (H, W, 3), the largest first."""
        picture = Pyramid(pixels, self._device)
        faces = [self._landmarks(picture, square, score) for square, score in self._detect(picture)]
        faces = sorted((face for face in faces if face.presence >= LEAST_PRESENCE), key=lambda face: -face.size)
        kept: list[Face] = []
        for face in faces:  # a tile may show a part of a face that is found whole in another
            if not any(_share_inside(face.points, other.points) > MOST_INSIDE for other in kept):
                kept.append(face)
        return kept

    def _detect(self, picture: Pyramid) -> list[tuple[Square, float]]:
        """Return the squares around faces for the mesh, with the detector's score.

        Tiles are searched only where the whole picture shows no face.
        """
        whole, *tiles = _views(picture.height, picture.width)
        return self._detect_in(picture, [whole]) or self._detect_in(picture, tiles)

    def _detect_in(self, picture: Pyramid, views: Sequence[Square]) -> list[tuple[Square, float]]:
        images = torch.cat([picture.sample(view, FaceDetector.side) for view in views])
        logits, places = self._detector(images / 127.5 - 1)
        scores = logits.clamp(-100, 100).sigmoid()
        found = []
        for view, of_view, place in zip(views, scores, places, strict=True):
            for index in torch.nonzero(of_view >= LEAST_SCORE).flatten():
                centre, size, right_eye, left_eye, *_ = place[index].view(-1, 2) / FaceDetector.side
                points = self._anchors[index] + torch.stack([centre, right_eye, left_eye])
                side = float(size.max()) * view.side
                found.append(_Found(view.to_picture(points.cpu().numpy()), side, float(of_view[index])))
        return [(found.square(), found.score) for found in _merge(found)]

    def _landmarks(self, picture: Pyramid, square: Square, score: float) -> Face:
        """Return the face in a square, found again in the square around its own landmarks."""
        for _ in range(2):
            points, logit = self._mesh(picture.sample(square, FaceMesh.side) / 255)
            places = square.to_picture(points[0, :, :2].cpu().numpy() / FaceMesh.side)
            square = _square_around(places)
        return Face(places.astype(np.float32), score, float(logit.sigmoid()))


class Pyramid:
    """A picture with smaller copies of itself, so that squares of any size are sampled without aliases."""

    def __init__(self, pixels: np.ndarray, device: torch.device):
        self.height, self.width = pixels.shape[:2]
        self._levels = [torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None].float()]
        while min(self._levels[-1].shape[2:]) > FaceDetector.side:
            self._levels.append(F.avg_pool2d(self._levels[-1], 2, ceil_mode=True))

    def sample(self, square: Square, side: int, beyond: str = "zeros") -> Tensor:
        """Return a square as an image (1, 3, side, side) in [0, 255]; `beyond` the picture are zeros or its rim."""
        level = max(0, min(len(self._levels) - 1, int(math.log2(max(1.0, square.side / side)))))
        image = self._levels[level]
        grid = torch.from_numpy(square.grid(side)).to(image)[None]
        scale = grid.new_tensor([image.shape[3] * 2**level, image.shape[2] * 2**level])
        return F.grid_sample(image, grid / scale * 2 - 1, padding_mode=beyond, align_corners=False)


def _views(height: int, width: int) -> list[Square]:
    """Return the squares of a picture in which faces are looked for: the whole of it, and tiles that overlap."""
    longer = max(height, width)
    side = TILE * longer
    xs, ys = (
        sorted({*np.linspace(min(side, length) / 2, length - min(side, length) / 2, TILES if length > side else 1)})
        for length in (width, height)
    )
    return [Square(width / 2, height / 2, longer), *(Square(x, y, side) for y in ys for x in xs)]


def _anchors() -> Tensor:
    """Return the centres of the detector's anchors, (896, 2), in shares of its image."""
    centres = []
    for side, count in GRIDS:
        along = (torch.arange(side) + 0.5) / side
        y, x = torch.meshgrid(along, along, indexing="ij")
        centres.append(torch.stack([x, y], dim=-1).flatten(0, 1).repeat_interleave(count, dim=0))
    return torch.cat(centres)


class _Found(NamedTuple):
    """A face by the detector: its centre and both eyes (3, 2) in the picture, the side of its box, and its score."""

    points: np.ndarray
    side: float
    score: float

    def square(self) -> Square:
        """Return the square in which the mesh looks for its landmarks."""
        return Square(*self.points[0], AROUND_BOX * self.side, _angle(self.points[2] - self.points[1]))


def _merge(found: Sequence[_Found]) -> list[_Found]:
    """Merge what is found of one face into the mean weighted by its scores."""
    left = sorted(found, key=lambda one: -one.score)
    merged = []
    while left:
        same = [_overlap(left[0], other) >= OVERLAP for other in left]
        alike = [one for one, is_same in zip(left, same, strict=True) if is_same]
        weights = [one.score for one in alike]
        points = np.average([one.points for one in alike], axis=0, weights=weights)
        side = float(np.average([one.side for one in alike], weights=weights))
        merged.append(_Found(points, side, left[0].score))
        left = [one for one, is_same in zip(left, same, strict=True) if not is_same]
    return merged


def _overlap(one: _Found, other: _Found) -> float:
    """Return the intersection over union of two boxes."""
    centres = np.abs(one.points[0] - other.points[0])
    shared = float((np.minimum((one.side + other.side) / 2 - centres, min(one.side, other.side))).clip(min=0).prod())
    return shared / (one.side**2 + other.side**2 - shared)


def _share_inside(points: np.ndarray, others: np.ndarray) -> float:
    """Return the share of points that lie in the box of others."""
    return float(((points >= others.min(axis=0)) & (points <= others.max(axis=0))).all(axis=1).mean())


def _angle(direction: np.ndarray) -> float:
    return math.atan2(direction[1], direction[0])


def _square_around(points: np.ndarray) -> Square:
    """Return the square around landmarks that is turned as the eyes are."""
    angle = _angle(points[LEFT_EYE] - points[RIGHT_EYE])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    upright = points @ turn
    low, high = upright.min(axis=0), upright.max(axis=0)
    return Square(*(turn @ ((low + high) / 2)), AROUND_BOX * (high - low).max(), angle)


def sample_square(pixels: np.ndarray, square: Square, side: int) -> np.ndarray:
    """Return a square of a picture, uint8 (H, W, 3), as an image (side, side, 3); beyond the picture is its rim."""
    image = Pyramid(pixels, torch.device("cpu")).sample(square, side, beyond="border")
    return image[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
