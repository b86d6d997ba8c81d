"""Supervised training of detectors and segmenter."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline_lib.config import SupervisedTraining
from pipeline_lib.imaging.blur import gaussian_blur
from pipeline_lib.imaging.transfer import to_float
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.devices import precision_on
from pipeline_lib.training.batches import batch_positions


class SupervisedTask:
    """Trains a network on images and targets with a given loss, AdamW and a cosine learning rate.

    Args:
        network: the network, trained in place.
        images: uint8 (n, 3, H, W) on the CPU.
        targets: (n, ...) on the CPU.
        loss: function of (network, images in [-1, 1], targets).
        distort: augmentation of the images of a step, given that step's random generator.
        settings: the config section.
        seed: seed of the run; every draw of step i depends only on (seed, name, i).
        device: where to train.
        name: name of the stage.
        positions: positions of the training images; None for all.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        images: Tensor,
        targets: Tensor,
        loss: Any,
        distort: Any,
        settings: SupervisedTraining,
        seed: int,
        device: torch.device,
        name: str,
        positions: Tensor | None = None,
    ):
        self.name, self.seed, self.device = name, seed, device
        self.positions = torch.arange(len(images)) if positions is None else positions
        self.network = network.to(device).train()
        self.images, self.targets = images, targets
        self.settings = settings
        self.images_per_step = settings.batch
        self.total_steps = max(1, round(settings.kimg * 1000 / settings.batch))
        self._loss, self._distort = loss, distort
        # on a CPU these small networks gain too little for a result that depends on the processor
        self._precision = precision_on(device) if device.type == "cuda" else "float32"
        self._optimiser = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=1e-3, fused=True)

    def step(self, index: int) -> dict[str, Tensor]:
        for group in self._optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * 0.5 * (1 + math.cos(math.pi * index / self.total_steps))
        places = batch_positions(index, self.settings.batch, len(self.positions), self.seed, self.name)
        chosen = self.positions[places]
        random = seeding.torch_generator(self.seed, self.name, index)
        images, targets = self.examples(chosen, index)
        images = self._distort(to_float(images, self.device), random)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "bfloat16"):
            loss = self._loss(self.network, images, targets.to(self.device))
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        return {"loss": loss}

    def examples(self, chosen: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return images, uint8 (n, 3, H, W), and targets of step `index`, from the positions drawn for it."""
        return self.images[chosen], self.targets[chosen]

    def diagnose(self, metrics: dict[str, float]) -> str | None:
        return None

    def snapshot(self, path: Path) -> None:
        """Write nothing, since a classifier has no samples."""

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])


def distort(images: Tensor, random: torch.Generator, *, blur: float, noise: float, color: float) -> Tensor:
    """Augment images (n, 3, H, W) with the artefacts of generated ones: blur, resampling, noise and colour shifts.

    Half of the batches are blurred by up to `blur` pixels and a quarter are downsampled and upsampled again. Each image
    gets noise of up to `noise` standard deviation and a shift of up to `color` in each channel.
    """
    count = len(images)
    level = torch.rand(count, 1, 1, 1, generator=random).to(images) * noise
    shift = (torch.rand(count, 3, 1, 1, generator=random).to(images) * 2 - 1) * color
    choice, amount = torch.rand(2, generator=random).tolist()
    if choice < 0.5:
        images = gaussian_blur(images, max(0.2, amount * blur))
    elif choice < 0.75:
        side = round(images.shape[-1] * (0.6 + 0.4 * amount))
        small = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
        images = F.interpolate(small, size=images.shape[-2:], mode="bilinear")
    return images + shift + level * _normal(images, random)


def _normal(images: Tensor, random: torch.Generator) -> Tensor:
    """Draw noise for images on their device; a GPU draws faster than it is sent numbers, but others than a CPU."""
    if images.device.type != "cpu":
        random = torch.Generator(images.device).manual_seed(random.initial_seed())
    return torch.randn(images.shape, generator=random, device=images.device)
