"""Composites: a collage goes once through the masked encoder and the frozen generator (paper Eq. 4)."""

from __future__ import annotations

import logging
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.config import Precision, PrecisionChoice
from pipeline_lib.imaging.distances import peak_signal_to_noise
from pipeline_lib.networks.checkpoints import load_weights
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.generator import Generator
from pipeline_lib.runtime.devices import compiled
from pipeline_lib.runtime.errors import WeightsError
from pipeline_lib.runtime.files import read_json

logger = logging.getLogger(__name__)

LEAST_PSNR = 45.0  # dB between composites in bfloat16 and in float32
LEAST_GAIN = 1.1  # in speed, below which bfloat16 is not worth its rounding
ROUNDS = 3


class Inverter:
    """An encoder and its generator as one image prior.

    On a GPU the two are compiled into one program at the first call, which takes half a minute; later calls with as
    many images are fast, so give it batches of one size.

    Args:
        encoder: weight file of the latent regressor, or the network itself.
        generator: weight file of the generator that it was trained for, or the network itself.
        device: where to compute.
        precision: in which layers compute; images and latents are float32 in either.
        compile: whether to compile; None: on a GPU.

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
                f"{encoder} regresses latents of shape {self.encoder.latent_shape}, but {generator} takes "
                f"{self.generator.latent_shape}; use the encoder trained for this generator"
            )
        self._rebuild = compiled(self._rebuild_eagerly, device, compile)

    @torch.no_grad()
    def __call__(self, images: Tensor, known: Tensor | None = None) -> Tensor:
        """Rebuild images (n, 3, H, W) in [-1, 1] from their pixels with `known` 1, as the generator would make them."""
        known = known if self.encoder.masked else None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self._rebuild(images, known)

    def _rebuild_eagerly(self, images: Tensor, known: Tensor | None) -> Tensor:
        return self.generator.decode(self.encoder(images, known).float()).float()


def open_inverter(
    encoder: Path,
    generator: Path,
    device: torch.device,
    wanted: PrecisionChoice,
    report: Path,
    compile: bool | None = None,
) -> Inverter:
    """Open encoder and generator in the precision that the config asks for.

    Args:
        encoder: weight file.
        generator: weight file.
        device: where to compute.
        wanted: the config's; "auto" takes what `probe_precision` found when the encoder was trained.
        report: JSON of that training.
        compile: whether to compile; None: on a GPU.
    """
    if wanted == "auto":
        found = read_json(report)["inversion"]
        wanted = found["precision"] if found["device"] == device.type else "float32"
        logger.info("inversion in %s: bfloat16 was tried on %s, and this is %s", wanted, found["device"], device.type)
    return Inverter(encoder, generator, device, wanted, compile)


def probe_precision(
    encoder: ResNetEncoder, generator: Generator, images: Tensor, known: Tensor | None, device: torch.device
) -> dict[str, Any]:
    """Find out which precision this device inverts faster in, and what bfloat16 costs in fidelity.

    Args:
        encoder: the latent regressor, in evaluation mode on the device.
        generator: its generator, on the device.
        images: (n, 3, H, W) in [-1, 1], on the device.
        known: their masks (n, 1, H, W), or None.
        device: where to compute.

    Returns:
        `precision`, the one to take; `device`, the kind of device that this holds for; `psnr`, of bfloat16 against
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
        "inversion on %s: %.0f img/s in float32, %.0f in bfloat16 at %.1f dB of it (at least %.0f wanted); taking %s",
        *(device.type, rates["float32"], rates["bfloat16"], psnr, LEAST_PSNR, chosen),
    )
    return {"precision": chosen, "device": device.type, "psnr": psnr, "images_per_second": rates}


def _seconds(inverter: Inverter, images: Tensor, known: Tensor | None) -> float:
    start = time.perf_counter()
    float(inverter(images, known).sum())  # waits for the device
    return time.perf_counter() - start
