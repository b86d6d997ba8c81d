"""Composites: a collage goes once through the masked encoder and the frozen generator (paper Eq. 4)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.generator import Generator
from pipeline_lib.runtime.errors import WeightsError


class Inverter:
    """An encoder and its generator as one image prior.

    Args:
        encoder: weight file of the latent regressor.
        generator: weight file of the generator that it was trained for.
        device: where to compute.

    Raises:
        WeightsError: the two do not share a latent space.
    """

    def __init__(self, encoder: Path, generator: Path, device: torch.device):
        self.encoder = load_weights(encoder, ResNetEncoder, device)
        self.generator = load_weights(generator, Generator, device)
        if self.encoder.latent_shape != self.generator.latent_shape:
            raise WeightsError(
                f"{encoder} regresses latents of shape {self.encoder.latent_shape}, but {generator} takes "
                f"{self.generator.latent_shape}; use the encoder trained for this generator"
            )

    @torch.no_grad()
    def __call__(self, images: Tensor, known: Tensor | None = None) -> Tensor:
        """Rebuild images (n, 3, H, W) in [-1, 1] from their pixels with `known` 1, as the generator would make them."""
        known = known if self.encoder.masked else None
        return self.generator.decode(self.encoder(images, known))


def make_collage(context: Tensor, donor: Tensor, pasted: Tensor) -> Tensor:
    """Lay the donor's pixels where `pasted` is 1 over the context (paper Eq. 4); all of shape (n, ., H, W)."""
    return torch.where(pasted.bool(), donor, context)
