"""Steps of adversarial training for either generator; objective and schedule are in modules of their own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline_lib.config import GanTraining
from pipeline_lib.imaging.grids import save_grid
from pipeline_lib.imaging.transfer import batch_for, to_float
from pipeline_lib.networks.discriminator import DEVIATION_GROUP, Discriminator
from pipeline_lib.networks.generator import Generator
from pipeline_lib.runtime import ranks, seeding
from pipeline_lib.runtime.devices import compiled
from pipeline_lib.runtime.errors import ConfigError
from pipeline_lib.training.adversarial import discriminator_loss, generator_loss, gradient_penalty
from pipeline_lib.training.attributes import AttributeDiscriminator
from pipeline_lib.training.batches import batch_positions
from pipeline_lib.training.loop import Task, descend
from pipeline_lib.training.schedule import averaging_weight, growth, learning_rate
from pipeline_lib.training.view import View

COLLAPSED = 0.02  # loss of a discriminator that has won; after ten log rows with less the training stops
GRID_IMAGES = 48  # images in a snapshot, always from the same latents


class Networks(NamedTuple):
    """The two networks of a GAN."""

    generator: Generator
    discriminator: Discriminator
    fresh: bool = False  # whether their weights are random, and not those of an earlier training


class GanTask(Task):
    """Trains a generator against a discriminator on `images`; the averaged generator is `self.average`.

    Args:
        networks: the two, trained in place.
        images: uint8 tensor (n, 3, resolution, resolution) on the CPU.
        training: the config section.
        seed: seed of the run.
        device: where to train.
        name: name of the training, for logs and random streams.
        attributes: a second discriminator, on a detector's logits; used only at full resolution.

    Raises:
        ConfigError: several processes train, and the batch has no whole groups of images for each of them.
    """

    def __init__(
        self,
        networks: Networks,
        images: Tensor,
        training: GanTraining,
        seed: int,
        device: torch.device,
        name: str,
        attributes: AttributeDiscriminator | None = None,
    ):
        if ranks.count() > 1 and training.batch % (DEVIATION_GROUP * ranks.count()):
            raise ConfigError(
                f"{name}: a batch of {training.batch} over {ranks.count()} processes is no multiple of "
                f"{DEVIATION_GROUP} images each, in groups of which the discriminator takes their deviation; "
                f"set `batch` to a multiple of {DEVIATION_GROUP * ranks.count()}, or use fewer processes"
            )
        super().__init__(training, seed, device, name)
        generator, discriminator, self.fresh = networks
        self.images, self.attributes = images, attributes
        self.generator = generator.to(device).train()
        self.discriminator = discriminator.to(device).train()
        self.average = copy.deepcopy(generator).requires_grad_(False).eval()
        rates = dict(lr=training.learning_rate, betas=(0.0, 0.99), eps=1e-8, fused=True)
        mapping = list(generator.mapping_parameters())
        others = [weight for weight in generator.parameters() if all(weight is not one for one in mapping)]
        groups = [{"params": others}, {"params": mapping, "factor": training.mapping_rate}]
        self._of_generator = torch.optim.Adam(groups, **rates)
        self._of_discriminator = torch.optim.Adam(discriminator.parameters(), **rates)
        self.stateful = {name: getattr(self, name) for name in ("generator", "discriminator", "average")}
        self.stateful |= {"of_generator": self._of_generator, "of_discriminator": self._of_discriminator}
        if attributes is not None:
            self.stateful["attributes"] = attributes
        local = discriminator.arguments.get("local")
        self._shares = [1.0] if local is None else [1.0, local["side"] ** 2]
        self._synthesize, self._discriminate = (
            compiled(network, device) for network in (self.generator.synthesize, self.discriminator)
        )
        self._easy_checks = 0
        self._index = 0

    def step(self, index: int) -> dict[str, Tensor]:
        self._index = index
        size, fade = growth(self.training, self.generator.resolution, index)
        random = seeding.torch_generator(self.seed, self.name, index, device=self.device)
        z = torch.randn(self.training.batch, self.generator.z_dim, generator=random, device=self.device)
        real = self._batch(index, size, fade)
        of_offsets = seeding.torch_generator(self.seed, self.name, index, "offsets")  # on the CPU, for slicing
        view = View(self.training, index / self.total_steps, size, random, of_offsets)

        fake = self._generate(ranks.own_rows(z), size, fade)
        losses = self._train_discriminator(real, fake.detach(), view, fade)
        losses |= self._train_generator(real, fake, view, fade)
        self._average_weights(index)
        return losses

    def _train_discriminator(self, real: Tensor, fake: Tensor, view: View, fade: float) -> dict[str, Tensor]:
        training = self.training
        losses = discriminator_loss(self._score(view(real), fade), self._score(view(fake), fade))
        objective = losses.sum()
        if self._index % training.penalty_every == 0:

            def scores(images: Tensor) -> Tensor:
                return self.discriminator(view(images), fade)

            penalty = gradient_penalty(scores, real, self._shares) + gradient_penalty(scores, fake, self._shares)
            gamma = training.gamma * (real.shape[-1] / self.generator.resolution) ** 2
            objective = objective + training.penalty_every * gamma / 2 * penalty
        descend(self._of_discriminator, objective, self._rate())
        return _named("loss_discriminator", losses)

    def _train_generator(self, real: Tensor, fake: Tensor, view: View, fade: float) -> dict[str, Tensor]:
        with torch.no_grad():
            score_real = self._score(view(real), fade)
        self.discriminator.requires_grad_(False)
        losses = generator_loss(score_real, self._score(view(fake), fade))
        objective, named = losses.sum(), _named("loss_generator", losses)
        if self.attributes is not None and real.shape[-1] == self.generator.resolution:
            with self.autocast():
                seen_real, seen_fake = self.attributes.look(real), self.attributes.look(fake)
            named["loss_attributes"] = self.attributes.learn(seen_real, seen_fake)
            objective = objective + self.attributes.against(seen_real, seen_fake)
        descend(self._of_generator, objective, self._rate())
        self.discriminator.requires_grad_(True)
        return named

    def _rate(self) -> float:
        return learning_rate(self.training, self._index, self.total_steps, self.fresh)

    def diagnose(self, metrics: dict[str, float]) -> str | None:
        """Report a collapse, when the discriminator loss stays below the threshold for ten checks."""
        won = metrics["loss_discriminator"] < COLLAPSED
        self._easy_checks = self._easy_checks + 1 if won else 0
        if self._easy_checks < 10:
            return None
        return f"training collapsed (discriminator loss {metrics['loss_discriminator']:.4f} after ten low checks)"

    def snapshot(self, path: Path) -> None:
        size, fade = growth(self.training, self.generator.resolution, self._index)
        with torch.no_grad():
            latents = self.average.sample_latents(range(GRID_IMAGES), self.seed)
            batches = latents.split(batch_for(size, GRID_IMAGES))
            shown = torch.cat([self.average.synthesize(batch, size, fade) for batch in batches])
            save_grid(path, shown.clamp(-1, 1), columns=12)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"easy_checks": self._easy_checks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._easy_checks = state["easy_checks"]

    def _batch(self, index: int, size: int, fade: float) -> Tensor:
        """Return real images in [-1, 1] at the resolution and fade of this step."""
        chosen = batch_positions(index, self.training.batch, len(self.images), self.seed, self.name)
        images = to_float(self.images[ranks.own_rows(chosen)], self.device)
        images = F.interpolate(images, size=(size, size), mode="area") if size < images.shape[-1] else images
        if fade < 1.0:
            coarse = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2)
            images = fade * images + (1 - fade) * coarse
        return images

    def _generate(self, z: Tensor, size: int, fade: float) -> Tensor:
        latents = self.generator.map_latents(z)
        synthesize = self._synthesize if fade == 1.0 else self.generator.synthesize  # else compiled at each step
        with self.autocast():
            return synthesize(latents, size, fade).float()

    def _score(self, images: Tensor, fade: float) -> Tensor:
        discriminate = self._discriminate if fade == 1.0 else self.discriminator
        with self.autocast():
            return discriminate(images, fade).float()

    @torch.no_grad()
    def _average_weights(self, index: int) -> None:
        weight = averaging_weight(self.training, index, self.fresh)
        torch._foreach_lerp_(list(self.average.parameters()), list(self.generator.parameters()), weight)


def _named(name: str, losses: Tensor) -> dict[str, Tensor]:
    """Name the losses of the whole image and, if there is one, of the local discriminator."""
    return dict(zip((name, f"{name}_local"), losses, strict=False))
