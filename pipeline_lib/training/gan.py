"""Adversarial training of either generator: relativistic loss with R1 and R2, progressive growing, EMA.

The pairing loss and both zero-centred penalties follow Huang et al. 2024 (R3GAN); growing follows
Karras et al. 2018, with the coarse image faded out as the fine one is faded in.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline_lib.config import AttributeLoss, Augmentation, GanTraining, LocalDiscriminator
from pipeline_lib.config import Generator as GeneratorSection
from pipeline_lib.data.shards import read_shards, resolution_of
from pipeline_lib.networks.checkpoints import load_given, load_weights, save_weights
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.networks.discriminator import Discriminator
from pipeline_lib.networks.generator import Generator
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.report.grids import save_grid
from pipeline_lib.runtime import ranks, seeding
from pipeline_lib.runtime.devices import compiled, resolve_precision
from pipeline_lib.runtime.errors import WeightsError
from pipeline_lib.runtime.files import digest_of, digest_of_files
from pipeline_lib.training.attributes import AttributeDiscriminator
from pipeline_lib.training.batches import batch_positions, to_float
from pipeline_lib.training.loop import run

GRID_IMAGES = 48  # in a snapshot, always of the same latents
NO_AUGMENTATION = Augmentation(brightness=0, contrast=0, shift=0)


class GanTask:
    """Trains `generator` against `discriminator` on `images`; the averaged generator is `self.average`.

    Args:
        generator: any `Generator`; trained in place.
        discriminator: trained in place.
        images: uint8 tensor (n, 3, resolution, resolution), kept on the CPU.
        settings: the config section.
        seed: of the run; every draw of step i depends on (seed, name, i) alone.
        device: where to train.
        name: of the stage, for logs and random streams.
        attributes: a second discriminator, of what a detector sees; used at full resolution.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        images: Tensor,
        settings: GanTraining,
        seed: int,
        device: torch.device,
        name: str,
        attributes: AttributeDiscriminator | None = None,
    ):
        self.attributes = attributes
        self.name = name
        self.settings = settings
        self.seed = seed
        self.device = device
        self.images = images
        self.images_per_step = settings.batch
        self.total_steps = max(1, round(settings.kimg * 1000 / settings.batch))
        self.generator = generator.to(device).train()
        self.discriminator = discriminator.to(device).train()
        self.average = copy.deepcopy(generator).requires_grad_(False).eval()
        rates = dict(lr=settings.learning_rate, betas=(0.0, 0.99), eps=1e-8, fused=True)
        mapping = list(generator.mapping_parameters())
        others = [weight for weight in generator.parameters() if all(weight is not one for one in mapping)]
        groups = [{"params": others, "factor": 1.0}, {"params": mapping, "factor": settings.mapping_rate}]
        self._optimisers = {
            "generator": torch.optim.Adam(groups, **rates),
            "discriminator": torch.optim.Adam([{"params": discriminator.parameters(), "factor": 1.0}], **rates),
        }
        local = discriminator.arguments.get("local")
        self._shares = [1.0] if local is None else [1.0, local["side"] ** 2]
        self._precision = resolve_precision(settings.precision, device)
        self._synthesize = compiled(self.generator.synthesize, device, settings.compile)
        self._discriminate = compiled(self.discriminator, device, settings.compile)
        self._easy_checks = 0
        self._index = 0

    def step(self, index: int) -> dict[str, Tensor]:
        settings = self.settings
        self._index = index
        size, fade = self._growth(index)
        self._set_learning_rate(index)
        random = seeding.torch_generator(self.seed, self.name, index, device=self.device)
        z = torch.randn(settings.batch, self.generator.z_dim, generator=random, device=self.device)
        z = ranks.own_rows(z)
        real = self._batch(index, size, fade)
        sides = size, size / self.generator.resolution
        view = _View(settings, index / self.total_steps, *sides, random, self._random(index))

        fake = self._generate(z, size, fade)
        difference = self._judge(view(real), fade) - self._judge(view(fake.detach()), fade)
        loss_discriminator = _loss(difference)
        objective = loss_discriminator.sum()
        if index % settings.penalty_every == 0:
            penalty = self._penalty(real, view, fade) + self._penalty(fake.detach(), view, fade)
            gamma = settings.gamma * (size / self.generator.resolution) ** 2
            objective = objective + settings.penalty_every * gamma / 2 * penalty
        self._update("discriminator", objective)

        with torch.no_grad():
            score_real = self._judge(view(real), fade)
        self.discriminator.requires_grad_(False)
        difference = self._judge(view(fake), fade) - score_real
        loss_generator = _loss(difference)
        losses = _named("loss_discriminator", loss_discriminator) | _named("loss_generator", loss_generator)
        objective = loss_generator.sum()
        if self.attributes is not None and size == self.generator.resolution:
            with self._autocast():
                seen_real, seen_fake = self.attributes.look(real), self.attributes.look(fake)
            losses["loss_attributes"] = self.attributes.learn(seen_real, seen_fake)
            objective = objective + self.attributes.against(seen_real, seen_fake)
        self._update("generator", objective)
        self.discriminator.requires_grad_(True)

        self._average_weights(index)
        return losses

    def diagnose(self, metrics: dict[str, float]) -> str | None:
        """Report a discriminator that has won for good: its loss stays under the threshold for ten checks."""
        won = metrics["loss_discriminator"] < self.settings.collapse_loss
        self._easy_checks = self._easy_checks + 1 if won else 0
        if self._easy_checks < 10:
            return None
        return f"the discriminator has won (loss {metrics['loss_discriminator']:.4f} over the last ten checks)"

    def snapshot(self, path: Path) -> None:
        size, fade = self._growth(self._index)
        with torch.no_grad():
            latents = self.average.sample_latents(range(GRID_IMAGES), self.seed)
            save_grid(path, self.average.synthesize(latents, size, fade).clamp(-1, 1), columns=12)

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self._optimisers.items()},
            "easy_checks": self._easy_checks,
            **({"attributes": self.attributes.state_dict()} if self.attributes else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("generator", "discriminator", "average"):
            getattr(self, name).load_state_dict(state[name])
        for name, optimiser in self._optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self._easy_checks = state["easy_checks"]
        if self.attributes:
            self.attributes.load_state_dict(state["attributes"])

    def _growth(self, index: int) -> tuple[int, float]:
        """Return the resolution trained at step `index` and the share of its newest block."""
        left = index * self.settings.batch / 1000
        resolution, first = self.generator.resolution, True
        for phase in self.settings.growth:
            if left < phase.kimg:
                resolution = phase.resolution
                break
            left, first = left - phase.kimg, False
        fading = not first and left < self.settings.fade_kimg
        return resolution, left / self.settings.fade_kimg if fading else 1.0

    def _batch(self, index: int, size: int, fade: float) -> Tensor:
        """Return real images in [-1, 1] at the resolution and fade of this step."""
        chosen = batch_positions(index, self.settings.batch, len(self.images), self.seed, self.name)
        images = to_float(self.images[ranks.own_rows(chosen)], self.device)
        images = F.interpolate(images, size=(size, size), mode="area") if size < images.shape[-1] else images
        if fade < 1.0:
            coarse = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2)
            images = fade * images + (1 - fade) * coarse
        return images

    def _random(self, index: int) -> torch.Generator:
        """Return a stream of the CPU, for what the program itself must know."""
        return seeding.torch_generator(self.seed, self.name, index, "offsets")

    def _generate(self, z: Tensor, size: int, fade: float) -> Tensor:
        latents = self.generator.map_latents(z)
        synthesize = self._synthesize if fade == 1.0 else self.generator.synthesize  # else compiled anew at each step
        with self._autocast():
            return synthesize(latents, size, fade).float()

    def _judge(self, images: Tensor, fade: float) -> Tensor:
        discriminate = self._discriminate if fade == 1.0 else self.discriminator
        with self._autocast():
            return discriminate(images, fade).float()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "bfloat16")

    def _penalty(self, images: Tensor, view: _View, fade: float) -> Tensor:
        """Return the mean squared gradient of each score, a local one's in proportion to the pixels it sees."""
        images = images.detach().requires_grad_()
        penalty = torch.zeros((), device=self.device)
        for scores, weight in zip(self.discriminator(view(images), fade).T, self._shares, strict=True):
            (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
            penalty = penalty + weight * gradient.square().sum(dim=(1, 2, 3)).mean()
        return penalty

    def _update(self, name: str, loss: Tensor) -> None:
        self._optimisers[name].zero_grad(set_to_none=True)
        loss.backward()
        ranks.average(weight.grad for group in self._optimisers[name].param_groups for weight in group["params"])
        self._optimisers[name].step()

    def _set_learning_rate(self, index: int) -> None:
        settings = self.settings
        factor = min(1.0, (index + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
        if index >= self.total_steps * (1 - settings.decay_share):
            factor *= settings.decay_factor
        for optimiser in self._optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * factor * group["factor"]

    @torch.no_grad()
    def _average_weights(self, index: int) -> None:
        """Let the averaged generator follow with a half-life of `ema_kimg`, a shorter one at the start."""
        half_life = self.settings.ema_kimg * 1000
        if self.settings.ema_rampup:
            half_life = min(half_life, max(0.1 * index * self.settings.batch, self.settings.batch))
        follow = 1 - 0.5 ** (self.settings.batch / half_life)
        torch._foreach_lerp_(list(self.average.parameters()), list(self.generator.parameters()), follow)


def _loss(difference: Tensor) -> Tensor:
    """Return the relativistic loss (scores,) of score differences (n, scores)."""
    return F.softplus(-difference).mean(dim=0)


def _named(name: str, losses: Tensor) -> dict[str, Tensor]:
    """Name the losses of the whole image and, where there is one, of the local discriminator."""
    return dict(zip((name, f"{name}_local"), losses, strict=False))


class _View:
    """What the discriminator sees of an image, real or fake alike: blurred early on, shifted, in other light."""

    def __init__(
        self,
        settings: GanTraining,
        progress: float,
        side: int,
        scale: float,
        random: torch.Generator,
        of_offsets: torch.Generator,
    ):
        augment = settings.augment if progress < settings.augment.until else NO_AUGMENTATION
        groups, batch = 8, settings.batch
        light = torch.rand(2, batch, 1, 1, 1, generator=random, device=random.device) * 2 - 1
        self._brightness = ranks.own_rows(light[0]) * augment.brightness
        self._contrast = 1 + ranks.own_rows(light[1]) * augment.contrast
        self._reach = round(augment.shift * side)
        self._offsets = torch.randint(0, 2 * self._reach + 1, (groups, 2), generator=of_offsets).tolist()
        left = 1 - progress / settings.blur_share if settings.blur_share else 0.0
        self._sigma = max(0.0, left) * settings.blur_sigma * scale

    def __call__(self, images: Tensor) -> Tensor:
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = (images - mean) * self._contrast + mean + self._brightness
        if self._sigma > 0.1:
            images = gaussian_blur(images, self._sigma)
        return self._shift(images) if self._reach else images

    def _shift(self, images: Tensor) -> Tensor:
        side = images.shape[-1]
        padded = F.pad(images, (self._reach,) * 4, mode="reflect")
        chunks = padded.chunk(len(self._offsets))
        moved = [
            chunk[:, :, top : top + side, left : left + side]
            for chunk, (top, left) in zip(chunks, self._offsets, strict=False)
        ]
        return torch.cat(moved).contiguous(memory_format=torch.channels_last)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Blur images (n, c, h, w) by a Gaussian of `sigma` pixels, cut off at three sigma, edges reflected."""
    reach = min(max(1, round(3 * sigma)), images.shape[-1] - 1)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / sigma) ** 2)
    taps = (taps / taps.sum()).to(images.dtype)
    channels = images.shape[1]
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    rows = F.conv2d(padded, taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(rows, taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def train_generator(
    *,
    images: list[Path],
    settings: GeneratorSection,
    training: GanTraining | None,
    attributes: AttributeLoss | None,
    selector: list[Path],
    init: str,
    source: list[Path],
    name: str,
    seed: int,
    checkpoints: Path,
    generator: Path,
    discriminator: list[Path],
    device: torch.device,
) -> None:
    """Train a generator and its discriminator, or bring given weights into the run.

    Args:
        images: shards of the training set.
        settings: the architecture.
        training: how to train; None copies the `source` weights.
        attributes: how a second discriminator matches the rates that a detector sees; None leaves it out.
        selector: weight file of that detector; empty without.
        init: "source" starts from the weights in `source`, "scratch" from random ones.
        source: generator and discriminator weights, in this order; may be empty for "scratch".
        name: of the training, for logs and random streams. The secondary GAN and the control share one, so that
            they see the same seeds.
        seed: of the run.
        checkpoints: folder of resumable states; a subfolder named by everything the result depends on is used.
        generator: weight file to make, the averaged generator.
        discriminator: weight file to make; none where a given generator has none.
        device: where to train.
    """
    if training is None:
        _bring_in(images, source, generator, discriminator)
        return
    pixels = torch.from_numpy(read_shards(images)[1]).permute(0, 3, 1, 2)
    if init == "source":
        network = _load_source(source[0], settings).requires_grad_(True)
        critic = load_weights(source[1], Discriminator).requires_grad_(True)
    else:
        network, critic = _new_networks(settings, pixels.shape[-1], seed)
    if training.local is not None:
        _add_local(critic, training.local, seed, source)
    sections = [settings.model_dump(), training.model_dump(), attributes and attributes.model_dump()]
    key = digest_of([*sections, init, seed, name, digest_of_files(*images, *source, *selector)])
    by_attributes = None
    if attributes is not None:
        by_attributes = AttributeDiscriminator(load_weights(selector[0], Detector), attributes, seed, device)
    task = GanTask(network, critic, pixels, training, seed, device, name, by_attributes)
    run(task, checkpoints / f"{name}-{key}")
    if ranks.rank():
        return
    _remember_mean_latent(task.average, seed)
    provenance = {"kimg": training.kimg, "training": training.model_dump(), "key": key, "images": len(pixels)}
    save_weights(*discriminator, task.discriminator, provenance)
    save_weights(generator, task.average, provenance)


def _new_networks(settings: GeneratorSection, resolution: int, seed: int) -> tuple[Generator, Discriminator]:
    torch.manual_seed(seeding.derive(seed, "weights"))
    discriminator = Discriminator(resolution, settings.channels)
    if settings.architecture == "progan":
        return ProGANGenerator(resolution, settings.channels, settings.z_dim), discriminator
    mapping = settings.mapping_layers
    return StyleGAN2Generator(resolution, settings.channels, settings.z_dim, mapping, noise=False), discriminator


def _add_local(discriminator: Discriminator, local: LocalDiscriminator, seed: int, source: list[Path]) -> None:
    wanted, found = local.model_dump(), discriminator.arguments.get("local")
    if found is None:
        torch.manual_seed(seeding.derive(seed, "local discriminator"))
        discriminator.add_local(**wanted)
    elif found != wanted:
        raise WeightsError(
            f"{source[1]}: has a local discriminator at {found}, but the config's `training.local` asks for {wanted}; "
            "leave `local` out to train on with the one given"
        )


def _load_source(path: Path, settings: GeneratorSection) -> Generator:
    network = load_weights(path, Generator)
    if network.arguments["channels"] != settings.channels or network.architecture != settings.architecture:
        raise WeightsError(
            f"{path}: a {network.architecture} with channels {network.arguments['channels']}, but the config's "
            f"`generator` asks for a {settings.architecture} with {settings.channels}; change one of them"
        )
    return network


def _bring_in(images: list[Path], source: list[Path], generator: Path, discriminator: list[Path]) -> None:
    side = resolution_of(images[0])
    for path, target, kind in zip(source, [generator, *discriminator], (Generator, Discriminator), strict=False):
        network, provenance = load_given(path, kind)
        if network.resolution != side:
            raise WeightsError(
                f"{path}: makes images of {network.resolution} pixels, but `data.resolution` is {side}; change it"
            )
        save_weights(target, network, provenance)


@torch.no_grad()
def _remember_mean_latent(network: Generator, seed: int) -> None:
    """Store the mean w of a style generator, the centre of truncation."""
    if isinstance(network, StyleGAN2Generator):
        latents = network.sample_latents(range(10_000), seeding.derive(seed, "mean latent"))
        network.latent_avg.copy_(latents[:, 0].mean(dim=0))
