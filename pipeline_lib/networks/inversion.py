"""Inversion of collages into composites, by one pass through the masked encoder and frozen generator (paper Eq. 4)."""

from __future__ import annotations

import logging
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.config import Precision
from pipeline_lib.imaging.distances import peak_signal_to_noise
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.generator import Generator
from pipeline_lib.runtime.devices import compiled
from pipeline_lib.runtime.errors import WeightsError
from pipeline_lib.runtime.files import read_json

logger = logging.getLogger(__name__)

LEAST_PSNR = 45.0  # dB between composites in bfloat16 and in float32
LEAST_GAIN = 1.1  # speedup required for bfloat16
ROUNDS = 3


class Inverter:
    """An encoder and its generator as one image prior.

    On a GPU the two are compiled into one program at the first call, which takes half a minute. Later calls with the
    same batch size are fast.

    Args:
        encoder: weight file of the encoder, or the network itself.
        generator: weight file of the generator that it was trained for, or the network itself.
        device: where to compute.
        precision: precision of the layers; images and latents are float32 in any case.
        compile: whether to compile; None compiles only on a GPU.

    Raises:
        WeightsError: the two do not share a latent space.
    """

    def __init__(
        self,
        encoder: Path | ResNetEncoder,
        generator: Path | Generator,
        device: torch.device,
        precision: Precision = "float32",
        compile: bool | None = None,
    ):
        self.encoder = load_weights(encoder, ResNetEncoder, device) if isinstance(encoder, Path) else encoder
        self.generator = load_weights(generator, Generator, device) if isinstance(generator, Path) else generator
        self.device = device
        self.precision = precision
        if self.encoder.latent_shape != self.generator.latent_shape:
            raise WeightsError(
                f"{encoder} predicts latents of shape {self.encoder.latent_shape}, but {generator} takes "
                f"{self.generator.latent_shape}; use the encoder trained for this generator"
            )
        self._rebuild = compiled(self._rebuild_eagerly, device, compile)

    @torch.no_grad()
    def __call__(self, images: Tensor, known: Tensor | None = None) -> Tensor:
        """Reconstruct images (n, 3, H, W) in [-1, 1] from the pixels whose `known` is 1, by the generator."""
        known = known if self.encoder.masked else None
        with self._autocast():
            return self._rebuild(images, known)

    @torch.no_grad()
    def encode(self, images: Tensor, known: Tensor | None = None) -> Tensor:
        """Return the latents (n, *latent_shape) of images as a call predicts them, uncompiled."""
        with self._autocast():
            return self.encoder(images, known if self.encoder.masked else None).float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Generate images (n, 3, H, W) in [-1, 1] from latents, uncompiled."""
        with self._autocast():
            return self.generator.decode(latents).float()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _rebuild_eagerly(self, images: Tensor, known: Tensor | None) -> Tensor:
        return self.generator.decode(self.encoder(images, known).float()).float()


def open_inverter(
    encoder: Path,
    generator: Path,
    device: torch.device,
    report: Path,
    compile: bool | None = None,
) -> Inverter:
    """Open encoder and generator in the precision that `probe_precision` chose for this device after the training.

    LATENT_REBALANCE_PRECISION, float32 or bfloat16, overrides it, as in trainings.

    Args:
        encoder: weight file.
        generator: weight file.
        device: where to compute.
        report: JSON of the encoder's training.
        compile: whether to compile; None compiles only on a GPU.
    """
    probed = read_json(report)["inversion"]
    chosen = probed["precision"] if probed["device"] == device.type else "float32"
    chosen = os.environ.get("LATENT_REBALANCE_PRECISION") or chosen
    logger.info("inversion in %s (precision probed on %s, running on %s)", chosen, probed["device"], device.type)
    return Inverter(encoder, generator, device, chosen, compile)


def probe_precision(
    encoder: ResNetEncoder, generator: Generator, images: Tensor, known: Tensor | None, device: torch.device
) -> dict[str, Any]:
    """Measure the speed of inversion in both precisions on this device, and the fidelity of bfloat16.

    Args:
        encoder: the encoder, in evaluation mode on the device.
        generator: its generator, on the device.
        images: (n, 3, H, W) in [-1, 1], on the device.
        known: their masks (n, 1, H, W), or None.
        device: where to compute.

    Returns:
        `precision`, the one to use; `device`, the device type that this is valid for; `psnr`, of bfloat16 against
        float32 in dB; and `images_per_second` by precision.
    """
    rates, made = {}, {}
    for precision in ("float32", "bfloat16"):
        inverter = Inverter(encoder, generator, device, precision, compile=False)  # compiling takes longer than both
        made[precision] = inverter(images, known)
        rates[precision] = len(images) / statistics.median(_seconds(inverter, images, known) for _ in range(ROUNDS))
    psnr = peak_signal_to_noise(made["bfloat16"], made["float32"])
    faster = rates["bfloat16"] > LEAST_GAIN * rates["float32"]
    chosen = "bfloat16" if faster and psnr >= LEAST_PSNR else "float32"
    logger.info(
        "inversion on %s: %.0f img/s in float32, %.0f in bfloat16 with a PSNR of %.1f dB (required: %.0f); using %s",
        *(device.type, rates["float32"], rates["bfloat16"], psnr, LEAST_PSNR, chosen),
    )
    return {"precision": chosen, "device": device.type, "psnr": psnr, "images_per_second": rates}


def _seconds(inverter: Inverter, images: Tensor, known: Tensor | None) -> float:
    start = time.perf_counter()
    float(inverter(images, known).sum())  # waits for the device
    return time.perf_counter() - start
