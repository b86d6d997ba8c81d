"""Supervised training of detectors and segmenter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline_lib.config import SupervisedTraining
from pipeline_lib.imaging.blur import gaussian_blur
from pipeline_lib.imaging.transfer import to_float
from pipeline_lib.runtime import seeding
from pipeline_lib.training.batches import batch_positions
from pipeline_lib.training.loop import Task, descend


@dataclass(frozen=True)
class Written:
    """Where the stage of a training writes."""

    checkpoints: Path  # folder of resumable checkpoints
    weights: Path
    report: Path  # JSON of its accuracy


class SupervisedTask(Task):
    """Trains a network on images and targets with AdamW and a learning rate that falls to zero.

    Args:
        network: the network, trained in place.
        images: uint8 (n, 3, H, W) on the CPU.
        targets: (n, ...) on the CPU.
        training: the config section.
        seed: seed of the run.
        device: where to train.
        name: name of the training.
    """

    rounds_on_cpu = False  # these small networks gain too little for a result that depends on the processor

    def __init__(
        self,
        network: torch.nn.Module,
        images: Tensor,
        targets: Tensor,
        training: SupervisedTraining,
        seed: int,
        device: torch.device,
        name: str,
    ):
        super().__init__(training, seed, device, name)
        self.network, self.images, self.targets = network.to(device).train(), images, targets
        self.positions = torch.arange(len(images))  # of the images that it learns from
        optimiser = torch.optim.AdamW(network.parameters(), training.learning_rate, weight_decay=1e-3, fused=True)
        self.stateful = {"network": self.network, "optimiser": optimiser}

    def step(self, index: int) -> dict[str, Tensor]:
        places = batch_positions(index, self.training.batch, len(self.positions), self.seed, self.name)
        images, targets = self.examples(self.positions[places], index)
        random = seeding.torch_generator(self.seed, self.name, index)
        images = self.vary(to_float(images, self.device), random)
        with self.autocast():
            loss = self.loss(images, targets.to(self.device))
        descend(self.stateful["optimiser"], loss, self.falling_rate(index))
        return {"loss": loss}

    def examples(self, chosen: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return images, uint8 (n, 3, H, W), and targets of step `index`, from the positions drawn for it."""
        return self.images[chosen], self.targets[chosen]

    def vary(self, images: Tensor, random: torch.Generator) -> Tensor:
        """Augment the images of a step, (n, 3, H, W) in [-1, 1]."""
        raise NotImplementedError

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of images in [-1, 1]."""
        raise NotImplementedError


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
    if images.device.type != "cpu":  # a GPU draws faster than it is sent numbers, but others than a CPU
        random = torch.Generator(images.device).manual_seed(random.initial_seed())
    return images + shift + level * torch.randn(images.shape, generator=random, device=images.device)
