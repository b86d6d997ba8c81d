"""Training of the networks that make whole images of collages without a pretrained generator's encoder (paper 4.2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config import Encoder as EncoderSection
from pipeline_lib.config import MaskSampling, TranslationMethod
from pipeline_lib.data.shards import read_shards
from pipeline_lib.imaging.transfer import as_pixels
from pipeline_lib.networks.checkpoints import load_weights, save_weights
from pipeline_lib.networks.distances import open_distance
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.generator import Generator
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.revisions import key_of, stage
from pipeline_lib.studies.catalogue import Variant
from pipeline_lib.studies.collages import PartImages, lay
from pipeline_lib.studies.methods.pyramid import PyramidEncoder
from pipeline_lib.studies.methods.translation import LayoutGenerator, ResNetTranslator
from pipeline_lib.studies.methods.translation_tasks import AdversarialTask, CycleTask, LayoutTask, ReconstructionTask
from pipeline_lib.training.encoder import EncoderTask, fit_encoder, new_encoder
from pipeline_lib.training.loop import run

BATCH, RATE = 8, 2e-4  # images in a step, and rate of Adam, which falls to zero in the second half
COLLAGES = 4000  # collages that CycleGAN learns from


@stage(revision=2)
def train_translator(
    *,
    images: list[Path],
    parts: Path | None,
    names: list[str],
    method: TranslationMethod,
    kimg: float,
    width: int,
    masks: MaskSampling,
    seed: int,
    checkpoints: Path,
    weights: Path,
    device: torch.device,
) -> None:
    """Train a network that makes whole images of collages, without a pretrained generator.

    Args:
        images: shards of real images.
        parts: their table of parts, from which collages and layouts are made; None for inpainting-network.
        names: names of the parts from back to front, the background first.
        method: cyclegan, spade or inpainting-network.
        kimg: length of the training in thousands of images.
        width: channels of the first layers.
        masks: how known pixels are drawn, as for the encoder; not used by cyclegan.
        seed: seed of the run.
        checkpoints: folder of resumable checkpoints.
        weights: weight file to write.
        device: where to train.
    """
    key = key_of(train_translator, locals(), without=("checkpoints", "weights", "device"))
    found = PartImages(images, parts, names)
    real = torch.from_numpy(found.pixels).permute(0, 3, 1, 2)
    options = {"batch": BATCH, "kimg": kimg, "learning_rate": RATE, "seed": seed, "device": device}
    options["name"] = f"train_{method}"
    torch.manual_seed(seeding.derive(seed, method, "weights"))
    if method == "cyclegan":
        collages = _collages(found, min(COLLAGES, len(real)), seed)
        task: AdversarialTask = CycleTask(real, collages, width, **options)
        network = task.networks["to_images"]
    elif method == "spade":
        network = LayoutGenerator(names, found.side, width // 2)
        task = LayoutTask(network, real, _codes(PartImages(images, parts, names, least=0)), masks, width, **options)
    else:
        network = ResNetTranslator(4, width)
        task = ReconstructionTask(network, network.fill, real, masks, width, **options)
    described = {"batch": BATCH, "kimg": kimg, "learning_rate": RATE, "width": width}
    if method != "cyclegan":
        described |= {"masks": masks.model_dump(mode="json")}
    run(task, checkpoints / f"{task.name}-{key}")
    save_weights(weights, network, {"training": described, "key": key})


@stage(revision=1)
def train_study_encoder(
    *,
    images: list[Path],
    generator: Path,
    variant: Variant,
    settings: EncoderSection,
    width: int,
    seed: int,
    checkpoints: Path,
    encoder: Path,
    device: torch.device,
) -> None:
    """Train one of the encoders that the studies compare: in-domain on real images, with a discriminator (Zhu 2020).

    Args:
        images: shards of real images, which `in_domain` alone learns from.
        generator: weight file of the generator.
        variant: which of them.
        settings: the config section of the encoder, of which the weights of the losses are not used.
        width: channels of the first layer of the discriminator.
        seed: seed of the run.
        checkpoints: folder of resumable checkpoints.
        encoder: weight file to write.
        device: where to train.
    """
    key = key_of(train_study_encoder, locals(), without=("checkpoints", "encoder", "device"))
    frozen = load_weights(generator, Generator, device)
    network = new_encoder(frozen, settings, seed, PyramidEncoder if variant == "pyramid" else ResNetEncoder)
    if variant == "in_domain":

        def reconstruct(masked: Tensor, known: Tensor) -> Tensor:
            return frozen.synthesize(network(masked, known if network.masked else None))

        real = torch.from_numpy(read_shards(images)[1]).permute(0, 3, 1, 2)
        options = settings.training.model_dump(include={"batch", "kimg", "learning_rate"})
        options |= {"seed": seed, "device": device, "name": "train_in_domain_encoder"}
        torch.manual_seed(seeding.derive(seed, "in-domain discriminator"))
        task = ReconstructionTask(network, reconstruct, real, settings.mask, width, **options)
        run(task, checkpoints / f"{task.name}-{key}")
    else:
        distance = open_distance(settings.training.distance)
        fit_encoder(EncoderTask(network, frozen, distance, settings, seed, device), settings, checkpoints, key)
    save_weights(encoder, network, {"training": settings.model_dump(mode="json"), "key": key})


def _collages(images: PartImages, count: int, seed: int) -> Tensor:
    """Return collages of random parts, uint8 (count, 3, H, W), grey in their holes."""
    made = []
    for numbers in torch.arange(count).split(64):
        layers = images.draw(numbers.tolist(), "cyclegan", seed, torch.device("cpu"))
        made.append(as_pixels(lay(layers)[0]))
    return torch.cat(made).permute(0, 3, 1, 2)


def _codes(images: PartImages) -> Tensor:
    """Return the part of each pixel, uint8 (n, H, W), with the background where no part is."""
    codes = np.zeros(images.pixels.shape[:3], np.uint8)
    for place, code in enumerate(codes):
        for name, mask in images.masks(place).items():
            code[mask] = images.names.index(name)
    return torch.from_numpy(codes)
