"""Sampling of images and latents from a generator."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import torch

from pipeline_lib.config import Sample
from pipeline_lib.data.prepare import shard_of
from pipeline_lib.data.shards import shard_writer
from pipeline_lib.data.tables import table_writer
from pipeline_lib.imaging.grids import save_grid
from pipeline_lib.imaging.transfer import batch_for, to_uint8
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.generator import Generator
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of, digest_of_files
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage

GRID_IMAGES = 64


@torch.no_grad()
@stage(revision=1)
def sample_generator(
    *,
    generator: Path,
    settings: Sample,
    run: str,
    seed: int,
    name: str,
    images: list[Path],
    latents: Path,
    grid: Path,
    device: torch.device,
    batch: int = 64,
) -> None:
    """Sample a generator at the latents 0, 1, ... of the run's seed, which are the same for all generators.

    Args:
        generator: its weight file.
        settings: the config section.
        run: name of the run, stored in the files.
        seed: seed of the run.
        name: name of the image set, the prefix of its image ids.
        images: shards to write.
        latents: table of latents to write.
        grid: PNG of the first samples to write.
        device: where to decode.
        batch: images decoded at a time.

    Raises:
        DataError: the generator has no truncation, but is to be sampled with it.
    """
    network = load_weights(generator, Generator, device)
    if settings.truncation < 1 and not isinstance(network, StyleGAN2Generator):
        raise DataError(f"{generator}: this generator has no truncation; set `sample.truncation: 1`")
    metadata = {
        "run": run,
        "config_digest": digest_of(settings.model_dump()),
        "generator_digest": digest_of_files(generator),
    }
    shown = []
    with ExitStack() as stack:
        writers = [stack.enter_context(shard_writer(path, network.resolution, metadata)) for path in images]
        table = stack.enter_context(table_writer(latents, "latents", metadata))
        progress = stack.enter_context(Progress(f"sample_generator ({name})", settings.images))
        batch = batch_for(network.resolution, batch)
        for start in range(0, settings.images, batch):
            indices = range(start, min(start + batch, settings.images))
            # always a full batch, because rounding depends on the batch size
            drawn = network.sample_latents(range(start, start + batch), seed)
            if settings.truncation < 1:
                drawn = network.truncate(drawn, settings.truncation)
            decoded, drawn = network.decode(drawn)[: len(indices)], drawn[: len(indices)]
            if start < GRID_IMAGES:
                shown.append(decoded)
            pixels = to_uint8(decoded).numpy()
            for index, latent, image in zip(indices, drawn.flatten(1).cpu().numpy(), pixels, strict=True):
                image_id = f"{name}-{index:08d}"
                writers[shard_of(index, settings.images, len(writers))].add([image_id], image[None])
                table.add([{"image_id": image_id, "latent": latent}])
            progress.advance(len(indices))
    save_grid(grid, torch.cat(shown)[:GRID_IMAGES], columns=16, scale=1)
