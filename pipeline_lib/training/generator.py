"""The stage that trains a generator or copies given weights into the run."""

from __future__ import annotations

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
from pipeline_lib.training.gan import GanTask
from pipeline_lib.training.loop import run


@stage(revision=2)
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
    """Train a generator and its discriminator, or copy given weights into the run.

    Args:
        images: shards of the training set.
        settings: config section of the architecture.
        training: config section of the training; None copies the `source` weights.
        attributes: config section of the discriminator on the selector's logits; None disables it.
        selector: weight file of the selector; empty without `attributes`.
        init: "source" starts from the weights in `source`, "scratch" from random ones.
        source: generator and discriminator weights, in this order; may be empty for "scratch".
        name: name of the training, for logs and random streams. The retrained and the control GAN share it, so that
            they use the same random draws.
        seed: seed of the run.
        checkpoints: folder of resumable checkpoints, with a subfolder named by all that the result depends on.
        generator: weight file of the averaged generator to write.
        discriminator: weight file to write; empty if a given generator has no discriminator.
        device: where to train.
    """
    if training is None:
        _bring_in(images, source, generator, discriminator)
        return
    key = key_of(
        train_generator,
        locals() | {"settings": settings.model_dump(exclude={"weights", "discriminator", "training"})},
        without=("checkpoints", "generator", "discriminator", "device"),
    )
    pixels = torch.from_numpy(read_shards(images)[1]).permute(0, 3, 1, 2)
    if init == "source":
        network = _load_source(source[0], settings).requires_grad_(True)
        critic = load_weights(source[1], Discriminator).requires_grad_(True)
    else:
        network, critic = new_networks(settings, pixels.shape[-1], seed)
    if training.local is not None:
        _add_local(critic, training.local, seed, source)
    by_attributes = None
    if attributes is not None:
        by_attributes = AttributeDiscriminator(load_weights(selector[0], Detector), attributes.weight, seed, device)
    task = GanTask(network, critic, pixels, training, seed, device, name, by_attributes, init == "scratch")
    run(task, checkpoints / f"{name}-{key}")
    if ranks.rank():
        return
    _remember_mean_latent(task.average, seed)
    provenance = {"kimg": training.kimg, "training": training.model_dump(), "key": key, "images": len(pixels)}
    save_weights(*discriminator, task.discriminator, provenance)
    save_weights(generator, task.average, provenance)


def new_networks(settings: GeneratorSection, resolution: int, seed: int) -> tuple[Generator, Discriminator]:
    """Return an untrained generator and discriminator for images of `resolution` pixels."""
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


def _bring_in(images: list[Path], source: list[Path], generator: Path, discriminator: list[Path]) -> None:
    side = resolution_of(images[0])
    for path, target, kind in zip(source, [generator, *discriminator], (Generator, Discriminator), strict=False):
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
