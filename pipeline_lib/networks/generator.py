"""The base class of all generators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pipeline_lib.runtime import seeding


class Generator(nn.Module):
    """A network from latents to images.

    Attributes:
        architecture: the name under which weights of this class are stored.
        arguments: the constructor's arguments, stored with the weights.
        resolution: side of the square images in pixels.
        z_dim: size of the Gaussian input.
        latent_shape: shape of one latent for `decode`, (z_dim,) for z and (layers, style_dim) for W+.
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
        """Return the weights of `map_latents`; empty if latents are the Gaussian inputs."""
        return iter(())

    def synthesize(self, latents: Tensor, resolution: int | None = None, fade: float = 1.0) -> Tensor:
        """Generate images from latents at any trained resolution, without the final clamp.

        Args:
            latents: (n, *latent_shape).
            resolution: side of the images; the full resolution if None.
            fade: weight of the last block, which rises from 0 to 1 in progressive growing.
        """
        raise NotImplementedError

    def sample_latents(self, indices: Iterable[int], seed: int) -> Tensor:
        """Draw the latents with these global indices, each a function of (seed, index)."""
        z = torch.from_numpy(seeding.indexed_normal(seed, "latents", indices, self.z_dim))
        return self.map_latents(z.to(next(self.parameters()).device))

    def decode(self, latents: Tensor) -> Tensor:
        """Generate images (n, 3, resolution, resolution) in [-1, 1] from latents of shape (n, *latent_shape)."""
        return self.synthesize(latents).clamp(-1, 1)
