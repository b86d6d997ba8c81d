"""Which networks and images a composer starts with."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from pipeline_lib.composer.session import Composer
from pipeline_lib.config import Config
from pipeline_lib.data.images import SUFFIXES, load_square
from pipeline_lib.data.sources import BadImageError
from pipeline_lib.imaging.transfer import as_pixels
from pipeline_lib.networks.checkpoints import load_given
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.generator import Generator
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.runtime.errors import ConfigError, DataError
from pipeline_lib.runtime.files import digest_of_files

logger = logging.getLogger(__name__)


def open_composer(
    config: Config, results: Path | None, folder: Path | None, count: int, device: torch.device
) -> Composer:
    """Open a composer with the networks of a run, or with the weights that a config names.

    Args:
        config: the config.
        results: `results/<run>`, whose networks are used; None for the weights in the config.
        folder: images to start from, centre-cropped and resized; None samples them from the generator.
        count: number of images, the first of the folder in the order of their names.
        device: where to compute.

    Raises:
        ConfigError: there are no weights to use.
        DataError: the folder has no usable image.
        WeightsError: a weight file cannot be used.
    """
    paths = _of_run(results) if results else _of_config(config)
    generator = load_given(paths["generator"], Generator)[0].to(device)
    encoder = load_given(paths["encoder"], ResNetEncoder, generator.resolution)[0].to(device)
    images = _from_folder(folder, count, generator.resolution) if folder else _samples(generator, count, config.seed)
    named = ", ".join(map(str, paths.values()))
    logger.info("%d images of %d pixels; networks: %s", len(images), generator.resolution, named)
    models = {role: digest_of_files(path) for role, path in paths.items()}
    inverter = Inverter(encoder.eval(), generator.eval(), device)
    return Composer(inverter, images, models, generated=folder is None)


def _of_run(results: Path) -> dict[str, Path]:
    paths = {
        "generator": results / "models/source/generator.safetensors",
        "encoder": results / "models/encoder.safetensors",
    }
    for path in paths.values():
        if not path.exists():
            raise ConfigError(f"{path}: this run has trained no such network yet; run it, or leave `--results` out")
    return paths


def _of_config(config: Config) -> dict[str, Path]:
    paths = {}
    for role, section in (("generator", config.generator), ("encoder", config.encoder)):
        if section is None or section.weights is None:
            raise ConfigError(f"`{role}.weights` is not set; set it, or name a finished run with `--results`")
        paths[role] = section.weights
    return paths


def _from_folder(folder: Path, count: int, side: int) -> dict[str, np.ndarray]:
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)[:count]
    images = {}
    for path in paths:
        if path.stem in images:
            raise DataError(f"{path}: another image in this folder has the same name but for its ending; rename one")
        try:
            images[path.stem] = load_square(path, side).image
        except BadImageError as error:
            raise DataError(f"{path}: {error}") from None
    if not images:
        raise DataError(f"{folder}: no images ({', '.join(sorted(SUFFIXES))}); correct the path")
    return images


@torch.no_grad()
def _samples(generator: Generator, count: int, seed: int) -> dict[str, np.ndarray]:
    pixels = as_pixels(generator.decode(generator.sample_latents(range(count), seed))).cpu().numpy()
    return {f"sample-{number:02d}": image for number, image in enumerate(pixels)}
