"""Attribute detectors and segmenters that run a pretrained ONNX model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.networks.classifier import Detector, as_logits
from pipeline_lib.networks.preprocess import Preprocess
from pipeline_lib.networks.segmenter import Segmenter, group_codes
from pipeline_lib.runtime.errors import WeightsError

logger = logging.getLogger(__name__)

CPU_ONLY = {"CPUExecutionProvider", "AzureExecutionProvider"}  # of onnxruntime's providers


class OnnxModel(nn.Module):
    """Runs a model with one input, images (n, 3, side, side), and returns its first output.

    Args:
        model_bytes: size of the model, which is kept in a buffer and thus saved in our weight files.
        preprocess: preprocessing of its input images.
    """

    def __init__(self, model_bytes: int, preprocess: Preprocess):
        super().__init__()
        self.preprocess = preprocess
        self.register_buffer("content", torch.zeros(model_bytes, dtype=torch.uint8))
        self._session: Any = None
        self._is_slow = False  # known to run on the CPU although the images are on a GPU

    def load(self, path: Path, content: bytes, resolution: int) -> Tensor:
        """Load the bytes of a model, and return its output for one black image of `resolution` pixels.

        Raises:
            WeightsError: they are not an ONNX model of this kind.
        """
        self.content.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        try:
            return self(torch.full((1, 3, resolution, resolution), -1.0))
        except WeightsError:
            raise
        except Exception as error:  # onnxruntime documents no closed set of errors
            reason = str(error).partition("\n")[0]
            side = self.preprocess.side or resolution
            raise WeightsError(f"{path}: does not run on an image of {side} pixels ({reason})") from None

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's first output for images (n, 3, H, W) in [-1, 1], float32 on their device."""
        if self._session is None:
            self._session = _open_session(self.content.cpu().numpy().tobytes())
        if images.is_cuda and not self._is_slow and CPU_ONLY.issuperset(self._session.get_providers()):
            self._is_slow = True
            logger.warning(
                "an ONNX model runs on the CPU, because this onnxruntime supports no GPU; "
                "run `pip install onnxruntime-gpu` in its place for a faster run"
            )
        name = self._session.get_inputs()[0].name
        inputs = self.preprocess(images).float().cpu().numpy()
        return torch.from_numpy(np.asarray(self._session.run(None, {name: inputs})[0])).to(images.device)


class OnnxClassifier(Detector):
    """Uses one output column of a model for each attribute.

    Args:
        attributes: names of the outputs, in order.
        columns: column of the model's first output for each attribute.
        model_bytes: size of the model.
        side: side in pixels to which images are resized; None does not resize.
        mean: channel means, subtracted from colours in [0, 1].
        std: channel standard deviations, which divide the result.
        gives: type of the outputs, see `as_logits`.
        mirror: average over an image and its mirror image.
    """

    architecture = "onnx-classifier"

    def __init__(
        self,
        attributes: Sequence[str],
        columns: Sequence[int],
        model_bytes: int,
        side: int | None = None,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        gives: Literal["logits", "probabilities", "exclusive"] = "logits",
        mirror: bool = True,
    ):
        super().__init__(attributes, 0, mirror)
        self.arguments = {
            "attributes": self.attributes,
            "columns": list(columns),
            "model_bytes": model_bytes,
            "side": side,
            "mean": list(mean),
            "std": list(std),
            "gives": gives,
            "mirror": mirror,
        }
        self.network = OnnxModel(model_bytes, Preprocess(side, mean, std))

    @classmethod
    def from_file(
        cls, path: Path, attributes: Sequence[str], columns: Sequence[int], resolution: int = 64, **options: Any
    ) -> OnnxClassifier:
        """Load a model from its file, and test it on one image of `resolution` pixels.

        Raises:
            WeightsError: the file is missing, is not an ONNX model of this kind, or has too few columns.
        """
        content = read_model(path)
        detector = cls(attributes, columns, len(content), **options)
        found = detector.network.load(path, content, resolution)
        if found.ndim != 2 or found.shape[1] <= max(columns):
            raise WeightsError(f"{path}: outputs {tuple(found.shape)} for one image, without column {max(columns)}")
        return detector

    def view_logits(self, images: Tensor) -> Tensor:
        return as_logits(self.network(images), self.arguments["columns"], self.arguments["gives"])


class OnnxSegmenter(Segmenter):
    """Groups the classes of a model into parts, or thresholds a saliency map.

    Args:
        groups: the model's classes of each part; all others are background.
        model_bytes: size of the model.
        threshold: of a saliency network, whose pixels with at least this score are its one part; None for classes.
        side: side in pixels to which images are resized; None does not resize.
        mean: channel means, subtracted from colours in [0, 1].
        std: channel standard deviations, which divide the result.
    """

    architecture = "onnx-segmenter"

    def __init__(
        self,
        groups: Mapping[str, Sequence[int]],
        model_bytes: int,
        threshold: float | None = None,
        side: int | None = None,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ):
        super().__init__(["background", *groups])
        self.arguments = {
            "groups": {name: list(classes) for name, classes in groups.items()},
            "model_bytes": model_bytes,
            "threshold": threshold,
            "side": side,
            "mean": list(mean),
            "std": list(std),
        }
        self.network = OnnxModel(model_bytes, Preprocess(side, mean, std))

    @classmethod
    def from_file(
        cls, path: Path, groups: Mapping[str, Sequence[int]], resolution: int = 64, **options: Any
    ) -> OnnxSegmenter:
        """Load a model from its file, and test it on one image of `resolution` pixels.

        Raises:
            WeightsError: the file is missing, is not an ONNX model of this kind, or has too few classes.
        """
        content = read_model(path)
        segmenter = cls(groups, len(content), **options)
        found = segmenter.network.load(path, content, resolution)
        shape = tuple(found.shape)
        if segmenter.arguments["threshold"] is not None and (found.ndim != 4 or shape[1] != 1 or len(groups) > 1):
            raise WeightsError(f"{path}: outputs {shape} for one image, not one part's score per pixel, (1, 1, h, w)")
        last = max(number for classes in groups.values() for number in classes)
        if found.ndim != 4 or shape[1] <= last:
            raise WeightsError(f"{path}: outputs {shape} for one image, not (1, classes, h, w) with class {last}")
        return segmenter

    def forward(self, images: Tensor) -> Tensor:
        scores = F.interpolate(self.network(images), size=images.shape[-2:], mode="bilinear")
        if (threshold := self.arguments["threshold"]) is not None:
            return (scores[:, 0] >= threshold).long()
        return group_codes(scores.argmax(dim=1), list(self.arguments["groups"].values()), scores.shape[1])


def read_model(path: Path) -> bytes:
    """Read the bytes of a model.

    Raises:
        WeightsError: there is no such file.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}; correct the path") from None


def _open_session(model: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise WeightsError("an ONNX model needs onnxruntime; run `pip install latent-rebalance[onnx]`") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings neither name the file nor help
    return onnxruntime.InferenceSession(model, options, providers=onnxruntime.get_available_providers())
