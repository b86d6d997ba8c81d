"""The identity loss between two images, by a pretrained face embedding (paper A.1.1)."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.config import IdentityLoss
from pipeline_lib.networks.preprocess import Preprocess
from pipeline_lib.runtime.errors import WeightsError


class Identity(nn.Module):
    """One minus the cosine similarity of two images' embeddings (Richardson et al. 2020).

    Args:
        settings: the config section, with the network's file, its crop and normalisation.

    Raises:
        WeightsError: the file is missing, or is not an embedding of images of that size.
    """

    def __init__(self, settings: IdentityLoss):
        super().__init__()
        self._crop = settings.crop
        self.preprocess = Preprocess(settings.side, settings.mean, settings.std)
        self.network = _open_onnx(settings.path) if settings.path.suffix == ".onnx" else _open_script(settings.path)
        self.requires_grad_(False).eval()
        try:
            found = self._embed(torch.zeros(2, 3, settings.side, settings.side))
        except Exception as error:  # a scripted network can raise any exception
            reason = str(error).strip().rpartition("\n")[2]
            raise WeightsError(
                f"{settings.path}: does not run on images of {settings.side} pixels ({reason})"
            ) from None
        if found.ndim != 2 or len(found) != 2:
            raise WeightsError(f"{settings.path}: outputs {tuple(found.shape)} for two images, not one vector each")

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distance of each pair, float (n,), 0 for equal images and 2 at most.

        Args:
            a: images (n, 3, H, W) in [-1, 1], which receive gradients.
            b: images of the same shape.
        """
        return 1 - F.cosine_similarity(self._embed(self._cut(a)), self._embed(self._cut(b)), dim=1)

    def _cut(self, images: Tensor) -> Tensor:
        return images if self._crop is None else images[(..., *self._crop.window(images.shape[-1]))]

    def _embed(self, images: Tensor) -> Tensor:
        return self.network(self.preprocess(images))


def _open_script(path: Path) -> nn.Module:
    try:
        with warnings.catch_warnings():  # torch asks for a new export of published files
            warnings.simplefilter("ignore", FutureWarning)
            return torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise WeightsError(f"{path}: neither TorchScript nor named .onnx ({reason}); export it again") from None


def _open_onnx(path: Path) -> nn.Module:
    """Convert an ONNX file to a module, because the loss needs gradients."""
    try:
        import onnx
        import onnx2torch
    except ImportError:
        raise WeightsError(
            "an identity loss by an ONNX file needs onnx2torch; run `pip install latent-rebalance[identity]`"
        ) from None
    try:
        return onnx2torch.convert(onnx.load(path))
    except Exception as error:  # neither package documents a closed set of errors
        reason = str(error).strip().partition("\n")[0]
        raise WeightsError(f"{path}: cannot be converted to a PyTorch network ({reason})") from None
