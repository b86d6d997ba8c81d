"""An attribute detector that somebody else trained, as an ONNX file; its bytes travel inside our weight files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline_lib.networks.classifier import Detector
from pipeline_lib.runtime.errors import WeightsError

SMALLEST_PROBABILITY = 1e-6  # a probability of 0 or 1 has no logit


class OnnxClassifier(Detector):
    """Runs an ONNX model with one input, images (n, 3, side, side), and takes one output column for each attribute.

    Args:
        attributes: names of the outputs, in their order.
        columns: column of the model's first output for each attribute.
        model_bytes: length of the model.
        side: to which images are scaled in pixels; None leaves them.
        mean: of each colour channel, subtracted from values in [0, 1].
        std: by which they are then divided.
        gives: what the columns hold.
        mirror: judge an image by itself and its mirror image together.
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
        gives: Literal["logits", "probabilities"] = "logits",
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
        self.register_buffer("model", torch.zeros(model_bytes, dtype=torch.uint8))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self._session: Any = None

    @classmethod
    def from_file(
        cls, path: Path, attributes: Sequence[str], columns: Sequence[int], trial: int = 64, **options: Any
    ) -> OnnxClassifier:
        """Take a model from its file, and try it on one image of `trial` pixels, or of its own side.

        Raises:
            WeightsError: the file is missing or no ONNX model of this kind, or has too few columns.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise WeightsError(f"{path}: {error.strerror}; correct the path") from None
        detector = cls(attributes, columns, len(content), **options)
        detector.model.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        side = detector.arguments["side"] or trial
        try:
            found = detector._run(torch.zeros(1, 3, side, side))
        except WeightsError:
            raise
        except Exception as error:  # onnxruntime documents no closed set of errors
            reason = str(error).partition("\n")[0]
            raise WeightsError(f"{path}: does not run on an image of {side} pixels ({reason})") from None
        if found.ndim != 2 or found.shape[1] <= max(columns):
            raise WeightsError(f"{path}: gives {tuple(found.shape)} for one image, but column {max(columns)} is wanted")
        return detector

    def view_logits(self, images: Tensor) -> Tensor:
        side = self.arguments["side"]
        if side is not None and images.shape[-1] != side:
            images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
        found = self._run(((images + 1) / 2 - self.mean) / self.std).to(images.device)
        found = found[:, self.arguments["columns"]]
        if self.arguments["gives"] == "logits":
            return found
        return torch.logit(found, eps=SMALLEST_PROBABILITY)

    def _run(self, inputs: Tensor) -> Tensor:
        if self._session is None:
            self._session = _open_session(self.model.cpu().numpy().tobytes())
        name = self._session.get_inputs()[0].name
        return torch.from_numpy(np.asarray(self._session.run(None, {name: inputs.float().cpu().numpy()})[0]))


def _open_session(model: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise WeightsError("an ONNX detector needs onnxruntime; run `pip install latent-rebalance[onnx]`") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings name no file and mend nothing
    return onnxruntime.InferenceSession(model, options, providers=onnxruntime.get_available_providers())
