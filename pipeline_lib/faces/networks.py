"""The face detector and the face mesh of MediaPipe as PyTorch modules.

Both are stacks of residual blocks of a depthwise and a pointwise convolution (Bazarevsky et al. 2019, BlazeFace;
Kartynnik et al. 2019). Names and sizes follow the model files `face_detection_short_range` and `face_landmark`.
"""

from __future__ import annotations

import itertools
from typing import TypeVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline_lib.runtime.files import SHIPPED

LANDMARKS = 468
#: Sides of the detector's two grids of cells, and its anchors in each cell.
GRIDS = ((16, 2), (8, 6))
BOX_AND_POINTS = 16  # centre and size of a box, and six points of a face


def _same(images: Tensor, kernel: int) -> Tensor:
    """Pad images of an even side for a convolution of stride 2, one pixel more below and on the right."""
    before = (kernel - 1) // 2 if kernel % 2 == 0 else (kernel - 2) // 2
    return F.pad(images, (before, kernel - 2 - before, before, kernel - 2 - before))


class _Block(nn.Module):
    """A depthwise and a pointwise convolution beside a skip connection, which pools and adds channels if need be."""

    def __init__(self, width: int, out: int, stride: int, activation: nn.Module):
        super().__init__()
        self.stride, self.more = stride, out - width
        self.depthwise = nn.Conv2d(width, width, 3, stride, padding=1 if stride == 1 else 0, groups=width)
        self.pointwise = nn.Conv2d(width, out, 1)
        self.activation = activation

    def forward(self, images: Tensor) -> Tensor:
        skip = images if self.stride == 1 else F.max_pool2d(images, 2)
        changed = self.pointwise(self.depthwise(images if self.stride == 1 else _same(images, 3)))
        return self.activation(F.pad(skip, (0, 0, 0, 0, 0, self.more)) + changed)


class _Stem(nn.Module):
    """The first convolution, of stride 2."""

    def __init__(self, width: int, kernel: int, activation: nn.Module):
        super().__init__()
        self.kernel = kernel
        self.convolution = nn.Conv2d(3, width, kernel, 2)
        self.activation = activation

    def forward(self, images: Tensor) -> Tensor:
        return self.activation(self.convolution(_same(images, self.kernel)))


class FaceDetector(nn.Module):
    """Finds faces in square images of 128 pixels, by 896 anchors on two grids."""

    side = 128

    def __init__(self) -> None:
        super().__init__()
        widths = (24, 28, 32, 36, 42, 48, 56, 64, 72, 80, 88)
        halved = (32, 48)
        fine = [_Block(24, 24, 1, nn.ReLU())]
        fine += [_Block(width, out, 2 if out in halved else 1, nn.ReLU()) for width, out in itertools.pairwise(widths)]
        self.fine = nn.Sequential(_Stem(24, 5, nn.ReLU()), *fine)
        self.coarse = nn.Sequential(_Block(88, 96, 2, nn.ReLU()), *(_Block(96, 96, 1, nn.ReLU()) for _ in range(4)))
        heads = [(width, count) for width, (_, count) in zip((88, 96), GRIDS, strict=True)]
        self.scores = nn.ModuleList(
            nn.Conv2d(width, count, 1) for width, (_, count) in zip((88, 96), GRIDS, strict=True)
        )
        self.places = nn.ModuleList(nn.Conv2d(width, count * BOX_AND_POINTS, 1) for width, count in heads)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (n, 896) and boxes with points (n, 896, 16), in pixels from their anchors.

        Args:
            images: (n, 3, 128, 128) in [-1, 1].
        """
        fine = self.fine(images)
        features = fine, self.coarse(fine)
        scores = [head(level).permute(0, 2, 3, 1).flatten(1) for head, level in zip(self.scores, features, strict=True)]
        places = [
            head(level).permute(0, 2, 3, 1).reshape(len(images), -1, BOX_AND_POINTS)
            for head, level in zip(self.places, features, strict=True)
        ]
        return torch.cat(scores, dim=1), torch.cat(places, dim=1)


class FaceMesh(nn.Module):
    """Finds 468 landmarks of the face in the middle of square images of 192 pixels."""

    side = 192

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 16, 16, 32, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 128)
        halved = (3, 6, 9, 12)
        self.trunk = nn.Sequential(
            _Stem(16, 3, nn.PReLU(16)),
            *(
                _Block(width, out, 2 if place in halved else 1, nn.PReLU(out))
                for place, (width, out) in enumerate(itertools.pairwise(widths), start=1)
            ),
        )
        self.presence = nn.Sequential(_Block(128, 128, 2, nn.PReLU(128)), *_head(1))
        self.landmarks = nn.Sequential(
            _Block(128, 128, 2, nn.PReLU(128)),
            *(_Block(128, 128, 1, nn.PReLU(128)) for _ in range(2)),
            *_head(3 * LANDMARKS),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return landmarks (n, 468, 3) and the logits (n,) of there being a face.

        The first two coordinates are pixels of the image, the third is depth in the same unit, less towards the camera.

        Args:
            images: (n, 3, 192, 192) in [0, 1].
        """
        features = self.trunk(images)
        landmarks = self.landmarks(features).reshape(len(images), LANDMARKS, 3)
        return landmarks, self.presence(features).flatten()


def _head(outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(128, 32, 1), nn.PReLU(32), _Block(32, 32, 1, nn.PReLU(32)), nn.Conv2d(32, outputs, 3)


Network = TypeVar("Network", FaceDetector, FaceMesh)
WEIGHTS = {FaceDetector: "detector", FaceMesh: "mesh"}


def load_network(kind: type[Network], device: torch.device) -> Network:
    """Return one of the two networks with the weights that come with the library, frozen."""
    network = kind()
    network.load_state_dict(load_file(SHIPPED / f"resources/face-mesh/{WEIGHTS[kind]}.safetensors"))
    return network.to(device).requires_grad_(False).eval()
