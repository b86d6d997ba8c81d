"""The stage that trains a generator or copies given weights into the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline_lib.config import AttributeLoss, GanTraining, LocalDiscriminator
from pipeline_lib.config import Generator as GeneratorSection
from pipeline_lib.data.shards import read_shards, resolution_of
from pipeline_lib.networks.checkpoints import load_given, load_weights, save_weights
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.networks.discriminator import Discriminator
from pipeline_lib.networks.generator import Generator
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.runtime import ranks, seeding
from pipeline_lib.runtime.errors import WeightsError
from pipeline_lib.runtime.revisions import key_of, stage
from pipeline_lib.training.attributes import AttributeDiscriminator
from pipeline_lib.training.gan import GanTask, Networks
from pipeline_lib.training.loop import run


@dataclass(frozen=True)
class Start:
    """The weights that a training starts from."""

    init: str  # "source" for those in `source`, "scratch" for random ones
    source: list[Path]  # generator and discriminator, in this order; may be empty for "scratch"


@dataclass(frozen=True)
class Written:
    """Where the stage writes."""

    checkpoints: Path  # folder of resumable checkpoints
    generator: Path  # the averaged generator
    discriminator: Path | None  # None if a given generator has no discriminator


@dataclass(frozen=True)
class Learning:
    """How a generator is trained."""

    settings: GeneratorSection  # config section of the architecture
    training: GanTraining | None  # config section of the training; None copies the weights of the start
    attributes: AttributeLoss | None  # config section of the discriminator on the selector's logits, if there is one
    selector: Path | None  # weight file; None without `attributes`
    name: str  # for logs and random streams; the retrained and the control GAN share it, and so their random draws
    seed: int


@stage(revision=2)
def train_generator(
    *, images: list[Path], start: Start, learning: Learning, made: Written, device: torch.device
) -> None:
    """Train a generator and its discriminator on image shards, or copy given weights into the run."""
    if learning.training is None:
        _bring_in(images, start.source, made)
        return
    settings, training, seed = learning.settings, learning.training, learning.seed
    learnt = vars(learning) | {"settings": settings.model_dump(exclude={"weights", "discriminator", "training"})}
    key = key_of(train_generator, {"images": images, "start": start, "learning": learnt})
    pixels = torch.from_numpy(read_shards(images)[1]).permute(0, 3, 1, 2)
    if start.init == "source":
        generator = _load_source(start.source[0], settings).requires_grad_(True)
        networks = Networks(generator, load_weights(start.source[1], Discriminator).requires_grad_(True))
    else:
        networks = new_networks(settings, pixels.shape[-1], seed)
    if training.local is not None:
        _add_local(networks.discriminator, training.local, seed, start.source)
    by_attributes = None
    if learning.attributes is not None:
        selector = load_weights(learning.selector, Detector)
        by_attributes = AttributeDiscriminator(selector, learning.attributes.weight, seed, device)
    task = GanTask(networks, pixels, training, seed, device, learning.name, by_attributes)
    run(task, made.checkpoints / f"{learning.name}-{key}")
    if ranks.rank():
        return
    _remember_mean_latent(task.average, seed)
    provenance = {"kimg": training.kimg, "training": training.model_dump(), "key": key, "images": len(pixels)}
    save_weights(made.discriminator, task.discriminator, provenance)
    save_weights(made.generator, task.average, provenance)


def new_networks(settings: GeneratorSection, resolution: int, seed: int) -> Networks:
    """Return an untrained generator and discriminator for images of `resolution` pixels."""
    torch.manual_seed(seeding.derive(seed, "weights"))
    discriminator = Discriminator(resolution, settings.channels)
    if settings.architecture == "progan":
        return Networks(ProGANGenerator(resolution, settings.channels, settings.z_dim), discriminator, fresh=True)
    mapping = settings.mapping_layers
    generator = StyleGAN2Generator(resolution, settings.channels, settings.z_dim, mapping, noise=False)
    return Networks(generator, discriminator, fresh=True)


def _add_local(discriminator: Discriminator, local: LocalDiscriminator, seed: int, source: list[Path]) -> None:
    wanted, found = local.model_dump(), discriminator.arguments.get("local")
    if found is None:
        torch.manual_seed(seeding.derive(seed, "local discriminator"))
        discriminator.add_local(**wanted)
    elif found != wanted:
        raise WeightsError(
            f"{source[1]}: has a local discriminator at {found}, but `training.local` in the config is {wanted}; "
            "remove `local` to use the one in the file"
        )


def _load_source(path: Path, settings: GeneratorSection) -> Generator:
    network = load_weights(path, Generator)
    if network.arguments["channels"] != settings.channels or network.architecture != settings.architecture:
        raise WeightsError(
            f"{path}: a {network.architecture} with channels {network.arguments['channels']}, but `generator` in the "
            f"config is a {settings.architecture} with {settings.channels}; change one of them"
        )
    return network


def _bring_in(images: list[Path], source: list[Path], made: Written) -> None:
    side = resolution_of(images[0])
    for path, target, kind in zip(
        source, [made.generator, made.discriminator], (Generator, Discriminator), strict=False
    ):
        network, provenance = load_given(path, kind)
        if network.resolution != side:
            raise WeightsError(
                f"{path}: a generator of {network.resolution} pixels, but `data.resolution` is {side}; change it"
            )
        save_weights(target, network, provenance)


@torch.no_grad()
def _remember_mean_latent(network: Generator, seed: int) -> None:
    """Store the mean w of a style generator, for truncation."""
    if isinstance(network, StyleGAN2Generator):
        latents = network.sample_latents(range(10_000), seeding.derive(seed, "mean latent"))
        network.latent_avg.copy_(latents[:, 0].mean(dim=0))
