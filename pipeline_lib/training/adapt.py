"""Fine-tuning of an encoder on one real image, for edits with a better reconstruction (paper A.2.4)."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline_lib.config import MaskSampling
from pipeline_lib.data.images import load_square
from pipeline_lib.data.sources import BadImageError
from pipeline_lib.imaging.grids import save_grid
from pipeline_lib.imaging.masks import random_masks
from pipeline_lib.networks.checkpoints import read_header, save_weights
from pipeline_lib.networks.distances import PerceptualDistance, open_distance
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError

logger = logging.getLogger(__name__)


def adapt_encoder(
    inverter: Inverter,
    image: Tensor,
    distance: PerceptualDistance,
    *,
    steps: int = 30,
    learning_rate: float = 5e-5,
    masks: MaskSampling | None = None,
    seed: int = 0,
) -> list[float]:
    """Fine-tune the encoder, in place, on one image with a new random mask at each step.

    Batch normalisation keeps its statistics, because those of a single image would degrade the encoder.

    Args:
        inverter: encoder and generator; the generator is frozen.
        image: (1, 3, H, W) in [-1, 1], on the inverter's device.
        distance: the perceptual distance, on the same device.
        steps: steps of Adam, 30 in the paper.
        learning_rate: learning rate of Adam, 5e-5 in the published code.
        masks: sampling of masks; None uses the defaults of training.
        seed: seed of the masks.

    Returns:
        The loss (mean square error plus perceptual distance) at each step.
    """
    encoder, generator = inverter.encoder.requires_grad_(True).eval(), inverter.generator
    optimiser = torch.optim.Adam(encoder.parameters(), learning_rate, betas=(0.5, 0.999))
    losses = []
    for step in range(steps):
        known = None
        if encoder.masked:
            random = seeding.torch_generator(seed, "adapt", step)
            known = random_masks(masks or MaskSampling(), 1, image.shape[-1], random).to(image.device)
        rebuilt = generator.synthesize(encoder(image, known))
        loss = F.mse_loss(rebuilt, image) + distance(rebuilt, image).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    encoder.requires_grad_(False)
    return losses


def adapt_to_file(
    *,
    encoder: Path,
    generator: Path,
    image: Path,
    adapted: Path,
    device: torch.device,
    steps: int = 30,
    learning_rate: float = 5e-5,
    distance: str = "stlpips-alex",
) -> None:
    """Fine-tune an encoder on one image file.

    Args:
        encoder: weight file of the encoder.
        generator: weight file of its generator.
        image: the image, which is centre-cropped.
        adapted: weight file to write; a PNG of the same name next to it shows the image and its reconstruction before
            and after.
        device: where to compute.
        steps: steps of Adam.
        learning_rate: learning rate of Adam.
        distance: name of the perceptual distance, see `open_distance`.

    Raises:
        DataError: the image cannot be used.
        WeightsError: weights cannot be used, or do not match each other.
    """
    inverter = Inverter(encoder, generator, device)
    try:
        pixels = torch.from_numpy(load_square(image, inverter.generator.resolution).image.copy())
    except BadImageError as reason:
        raise DataError(f"{image}: {reason}") from None
    target = (pixels.permute(2, 0, 1)[None].float() / 127.5 - 1).to(device)
    before = inverter(target)
    losses = adapt_encoder(
        inverter, target, open_distance(distance).to(device), steps=steps, learning_rate=learning_rate
    )
    after = inverter(target)
    errors = [float(F.mse_loss(rebuilt, target)) for rebuilt in (before, after)]
    logger.info("mean square error of the whole image: %.4f before, %.4f after %d steps", *errors, len(losses))
    save_weights(adapted, inverter.encoder, read_header(encoder) | {"adapted_to": image.name, "adapted_steps": steps})
    save_grid(adapted.with_suffix(".png"), torch.cat([target, before, after]), columns=3)
