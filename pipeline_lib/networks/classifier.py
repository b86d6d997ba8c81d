"""The base class of attribute detectors, and two small detectors of different architecture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.config.columns import column_of

SMALLEST_PROBABILITY = 1e-6  # a probability of 0 or 1 has no logit


class Detector(nn.Module):
    """Maps images to calibrated attribute logits.

    Args:
        attributes: names of the outputs, in order.
        width: channels of the first layer.
        mirror: average over an image and its mirror image.
    """

    architecture: str

    def __init__(self, attributes: Sequence[str], width: int, mirror: bool = True):
        super().__init__()
        self.attributes = list(attributes)
        self.mirror = mirror
        self.arguments = {"attributes": self.attributes, "width": width, "mirror": mirror}
        #: Temperatures that divide the logits, fitted on held-out images (Guo et al. 2017).
        self.register_buffer("temperature", torch.ones(len(self.attributes)))

    def logits(self, images: Tensor) -> Tensor:
        """Return calibrated logits (n, attributes) of images (n, 3, H, W) in [-1, 1].

        Of the values of one column at most one is positive; see `one_value_of_each_column`.
        """
        return one_value_of_each_column(self.raw_logits(images) / self.temperature, self.attributes)

    def raw_logits(self, images: Tensor) -> Tensor:
        """Return logits before calibration."""
        if not self.mirror:
            return self.view_logits(images)
        return (self.view_logits(images) + self.view_logits(images.flip(-1))) / 2

    def view_logits(self, images: Tensor) -> Tensor:
        """Return logits without mirror images, as in training."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Return the probability of each attribute, (n, attributes)."""
        return self.logits(images).sigmoid()

    def index(self, attribute: str) -> int:
        """Return the column of an attribute."""
        return self.attributes.index(attribute)


def one_value_of_each_column(logits: Tensor, attributes: Sequence[str]) -> Tensor:
    """Return logits of attributes (n, attributes) in which no image has two values of one column.

    Where the probabilities of attributes such as `race=Black` and `race=White` sum to more than 1, each is divided by
    the sum. Other logits stay as they are.
    """
    values = sorted((column_of(name), place) for place, name in enumerate(attributes) if "=" in name)
    for _, of_column in groupby(values, key=lambda pair: pair[0]):
        places = [place for _, place in of_column]
        if len(places) > 1:
            probabilities = logits[:, places].float().sigmoid()
            shares = probabilities / probabilities.sum(dim=1, keepdim=True).clamp(min=1)
            logits = logits.index_copy(
                1, torch.tensor(places, device=logits.device), shares.logit(SMALLEST_PROBABILITY).to(logits.dtype)
            )
    return logits


class PlainClassifier(Detector):
    """Six 3x3 convolutions with batch normalisation, then global average pooling at 4x4 cells."""

    architecture = "plain-classifier"

    def __init__(self, attributes: Sequence[str], width: int, mirror: bool = True):
        super().__init__(attributes, width, mirror)
        widths = [3, width, width, 2 * width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for layer, (inputs, outputs) in enumerate(pairwise(widths)):
            stride = 2 if layer in (0, 2, 4) else 1
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(4 * width * 16, len(self.attributes))

    def view_logits(self, images: Tensor) -> Tensor:
        features = self.body(images.contiguous(memory_format=torch.channels_last))
        return self.head(F.adaptive_avg_pool2d(features, 4).flatten(1))


class ResidualClassifier(Detector):
    """Four pre-activation residual blocks with group normalisation and max pooling."""

    architecture = "residual-classifier"

    def __init__(self, attributes: Sequence[str], width: int, mirror: bool = True):
        super().__init__(attributes, width, mirror)
        self.stem = nn.Conv2d(3, width, 5, 2, 2)
        widths = [width, 2 * width, 4 * width, 4 * width, 4 * width]
        self.blocks = nn.ModuleList(_PreActivationBlock(a, b) for a, b in pairwise(widths))
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(4 * width * 16, len(self.attributes)))

    def view_logits(self, images: Tensor) -> Tensor:
        features = self.stem(images.contiguous(memory_format=torch.channels_last))
        for number, block in enumerate(self.blocks):
            features = block(features)
            if number in (0, 1):
                features = F.max_pool2d(features, 2)
        return self.head(F.adaptive_max_pool2d(features, 4).flatten(1))


class _PreActivationBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, inputs), nn.GroupNorm(4, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.relu(self.norm2(y)))


def as_logits(
    outputs: Tensor, columns: Sequence[int], gives: Literal["logits", "probabilities", "exclusive"]
) -> Tensor:
    """Return the logits (n, columns) of some columns of a classifier's outputs (n, classes).

    Args:
        outputs: outputs of a pretrained classifier.
        columns: columns to return.
        gives: type of the outputs: logits, probabilities, or logits of mutually exclusive classes, each of which is
            converted to a logit of this class against all others.
    """
    if gives == "probabilities":
        return torch.logit(outputs[:, columns], eps=SMALLEST_PROBABILITY)
    if gives == "exclusive":
        number = torch.arange(outputs.shape[1])
        others = [outputs[:, number != column].logsumexp(dim=1) for column in columns]
        return outputs[:, columns] - torch.stack(others, dim=1)
    return outputs[:, columns]
