"""What every other part of the workflow knows of a generator, whichever architecture it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pipeline_lib.runtime import seeding


class Generator(nn.Module):
    """A map from latents to images.

    Attributes:
        architecture: the name under which weights of this class are stored.
        arguments: the constructor's arguments, stored beside the weights.
        resolution: side of the square images in pixels.
        z_dim: size of the Gaussian input.
        latent_shape: shape of one latent that `decode` takes: (z_dim,) for z, (layers, style_dim) for W+.
    """

    architecture: str

    def __init__(self, resolution: int, z_dim: int, latent_shape: tuple[int, ...], arguments: dict[str, Any]):
        super().__init__()
        self.resolution = resolution
        self.z_dim = z_dim
        self.latent_shape = latent_shape
        self.arguments = arguments

    def map_latents(self, z: Tensor) -> Tensor:
        """Map Gaussian inputs of shape (n, z_dim) to latents of shape (n, *latent_shape)."""
        raise NotImplementedError

    def mapping_parameters(self) -> Iterator[nn.Parameter]:
        """Return the weights that `map_latents` uses, none where latents are the Gaussian inputs themselves."""
        return iter(())

    def synthesize(self, latents: Tensor, resolution: int | None = None, fade: float = 1.0) -> Tensor:
        """Make images from latents at any trained resolution, without the final clamp.

        Args:
            latents: (n, *latent_shape).
            resolution: side of the images; the full resolution if None.
            fade: share of the last block in the image, which progressive growing raises from 0 to 1.
        """
        raise NotImplementedError

    def sample_latents(self, indices: Iterable[int], seed: int) -> Tensor:
        """Draw the latents with these global indices: a function of (seed, index), whatever the batch."""
        z = torch.from_numpy(seeding.indexed_normal(seed, "latents", indices, self.z_dim))
        return self.map_latents(z.to(next(self.parameters()).device))

    def decode(self, latents: Tensor) -> Tensor:
        """Make images of shape (n, 3, resolution, resolution) in [-1, 1] from latents of shape (n, *latent_shape)."""
        return self.synthesize(latents).clamp(-1, 1)
