"""How well an encoder reconstructs the samples of its generator, for model cards.

    python -m benchmarks.reconstruction resources/avatars-64 --grid grid.png

The folder holds `generator.safetensors` and `encoder.safetensors`; `--encoder` names another file. An encoder with a
mask channel is measured with all pixels known, and with random masks (`--least`). PSNR and L1 are of single images over
the known pixels, and their median is printed with the 5th and the 95th percentile. The grid has a row each of samples,
what the encoder sees of them, and reconstructions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pipeline_lib.config import MaskSampling
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.imaging.grids import save_grid
from pipeline_lib.imaging.masks import random_masks
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.devices import tune_cpu

BATCH = 50
SHOWN = 12


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each way to mask samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", default="encoder.safetensors", help="name of the encoder's file")
    parser.add_argument("--images", type=int, default=1000, help="samples (default: 1000)")
    parser.add_argument("--least", type=float, default=0.5, help="lower limit of the masks' threshold (default: 0.5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grid", type=Path, help="PNG to write")
    options = parser.parse_args(arguments)
    tune_cpu(torch.get_num_threads())
    inverter = Inverter(
        options.folder / options.encoder, options.folder / "generator.safetensors", torch.device("cpu"), compile=False
    )
    table = Table("known pixels", "PSNR, dB", "L1")
    ways = {"all": None} | ({"random masks": MaskSampling(least=options.least)} if inverter.encoder.masked else {})
    shown: list[Tensor] = []
    for name, masks in ways.items():
        psnr, l1, examples = reconstruct(inverter, masks, options.images, options.seed)
        table.add_row(name, spread(psnr, "{:.1f}"), spread(l1, "{:.3f}"))
        shown += examples if not shown else examples[1:]
    Console().print(table)
    if options.grid:
        save_grid(options.grid, torch.cat(shown), columns=SHOWN, scale=2)


@torch.no_grad()
def reconstruct(
    inverter: Inverter, masks: MaskSampling | None, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray, list[Tensor]]:
    """Reconstruct samples.

    Args:
        inverter: encoder and generator.
        masks: how masks are drawn; None means that all pixels are known.
        count: number of samples.
        seed: what samples and masks depend on.

    Returns:
        PSNR in dB and L1 over the known pixels, each of shape (count,), and the first samples, masked samples and
        reconstructions, (n, 3, H, W) each.
    """
    random = seeding.torch_generator(seed, "reconstruction")
    psnr, l1 = [], []
    shown: list[Tensor] = []
    for start in range(0, count, BATCH):
        z = torch.randn(min(BATCH, count - start), inverter.generator.z_dim, generator=random)
        images = inverter.generator.decode(inverter.generator.map_latents(z))
        known = torch.ones_like(images[:, :1])
        if masks is not None:
            known = random_masks(masks, len(images), images.shape[-1], random)
        rebuilt = inverter(images, known)
        error = ((images - rebuilt).square() * known).sum(dim=(1, 2, 3)) / (3 * known.sum(dim=(1, 2, 3)))
        psnr.append(10 * torch.log10(4 / error))
        l1.append(masked_l1(images, rebuilt, known))
        shown = shown or [images[:SHOWN], (images * known)[:SHOWN], rebuilt[:SHOWN]]
    return torch.cat(psnr).numpy(), torch.cat(l1).numpy(), shown


def spread(values: np.ndarray, form: str) -> str:
    """Return the median with the 5th and the 95th percentile."""
    low, median, high = (form.format(value) for value in np.percentile(values, (5, 50, 95)))
    return f"{median} [{low}, {high}]"


if __name__ == "__main__":
    main()
