"""How well an encoder reconstructs the samples of its generator, for model cards.

    python -m experiments.reconstruction resources/avatars-64 --grid grid.png

The folder holds `generator.safetensors` and `encoder.safetensors`; `--encoder` names another file. An encoder with a
mask channel is measured with all pixels known, and with random masks (`--least`). PSNR and L1 are of single images over
the known pixels, and their median is printed with the 5th and the 95th percentile. With `--detector`, such as
results/avatars/models/referee.safetensors, the share of samples follows of whose reconstruction it says the same, for
each attribute. The grid has a row each of samples, what the encoder sees of them, and reconstructions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pipeline_lib.config import MaskSampling
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.imaging.grids import save_grid
from pipeline_lib.imaging.masks import random_masks
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.classifier import Detector
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.devices import tune_cpu

BATCH = 50
SHOWN = 12


class Reconstructions(NamedTuple):
    """What is measured of reconstructed samples."""

    psnr: np.ndarray  # dB over the known pixels, (n,)
    l1: np.ndarray  # over the known pixels, (n,)
    same: np.ndarray  # whether the detector says the same of sample and reconstruction, bool (n, attributes)
    shown: list[Tensor]  # the first samples, what is seen of them, and their reconstructions, (n, 3, H, W) each


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each way to mask samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", default="encoder.safetensors", help="name of the encoder's file")
    parser.add_argument("--images", type=int, default=1000, help="samples (default: 1000)")
    parser.add_argument("--least", type=float, default=0.5, help="lower limit of the masks' threshold (default: 0.5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--detector", type=Path, help="weight file of a trained detector")
    parser.add_argument("--grid", type=Path, help="PNG to write")
    options = parser.parse_args(arguments)
    tune_cpu(torch.get_num_threads())
    inverter = Inverter(
        options.folder / options.encoder, options.folder / "generator.safetensors", torch.device("cpu"), compile=False
    )
    detector = load_weights(options.detector, Detector, inverter.device) if options.detector else None
    table = Table("known pixels", "PSNR, dB", "L1", *(detector.attributes if detector else ()))
    ways = {"all": None} | ({"random masks": MaskSampling(least=options.least)} if inverter.encoder.masked else {})
    shown: list[Tensor] = []
    for name, masks in ways.items():
        found = reconstruct(inverter, masks, options.images, options.seed, detector)
        same = (f"{share:.2f}" for share in found.same.mean(axis=0))
        table.add_row(name, spread(found.psnr, "{:.1f}"), spread(found.l1, "{:.3f}"), *same)
        shown += found.shown if not shown else found.shown[1:]
    Console(width=130).print(table)
    if options.grid:
        save_grid(options.grid, torch.cat(shown), columns=SHOWN, scale=2)


@torch.no_grad()
def reconstruct(
    inverter: Inverter, masks: MaskSampling | None, count: int, seed: int, detector: Detector | None = None
) -> Reconstructions:
    """Reconstruct samples.

    Args:
        inverter: encoder and generator.
        masks: how masks are drawn; None means that all pixels are known.
        count: number of samples.
        seed: what samples and masks depend on.
        detector: says of both whether they have its attributes.
    """
    random = seeding.torch_generator(seed, "reconstruction")
    psnr, l1 = [], []
    same = [] if detector else [torch.empty(count, 0, dtype=torch.bool)]
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
        if detector:
            same.append((detector.logits(images) > 0) == (detector.logits(rebuilt) > 0))
        shown = shown or [images[:SHOWN], (images * known)[:SHOWN], rebuilt[:SHOWN]]
    return Reconstructions(*(torch.cat(found).numpy() for found in (psnr, l1, same)), shown)


def spread(values: np.ndarray, form: str) -> str:
    """Return the median with the 5th and the 95th percentile."""
    low, median, high = (form.format(value) for value in np.percentile(values, (5, 50, 95)))
    return f"{median} [{low}, {high}]"


if __name__ == "__main__":
    main()
