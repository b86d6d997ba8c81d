"""What an encoder loses without one of its losses (paper A.2.3, Table 2, Fig. 16)."""

from __future__ import annotations

import torch

from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.networks.distances import perceptual_distances
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.networks.perceptual import TITLES, load_perceptual
from pipeline_lib.studies.study import Findings, Study

ALL, NO_LATENT, NO_PERCEPTUAL = ENCODERS = (
    "encoder with all losses", "encoder without latent loss", "encoder without perceptual loss",
)  # fmt: skip
L1 = "masked L1"
#: The paper's Table 2, of its ProGAN of churches: masked L1 and LPIPS with AlexNet.
PAPER = {ALL: (0.194, 0.291), NO_LATENT: (0.194, 0.305), NO_PERCEPTUAL: (0.197, 0.318)}


def measure(study: Study, device: torch.device) -> None:
    """Reconstruct masked held-out images with encoders trained alike but for one loss, and measure the known pixels.

    The perceptual distance is by another backbone than the one in the loss, as in the paper. Unknown pixels are grey in
    both images.
    """
    network = load_perceptual("alex" if study.like.training.distance.endswith("vgg") else "vgg").to(device)
    perceptual = f"perceptual distance ({TITLES[network.network]})"
    files = dict(zip(ENCODERS, (study.all_losses, study.no_latent, study.no_perceptual), strict=True))
    inverters = {name: Inverter(path, study.generator, device, compile=False) for name, path in files.items()}
    found = Findings(study)
    for images, known in study.masked(study.held_out, device):
        made = {name: inverter(images, known) for name, inverter in inverters.items()}
        for name, rebuilt in made.items():
            distances = perceptual_distances(network, images, rebuilt, known)
            found.add(name, {L1: masked_l1(images, rebuilt, known), perceptual: distances})
        found.show([images, images * known, *made.values()])
    quoted = {(name, metric): PAPER[name][column] for name in PAPER for column, metric in enumerate((L1, perceptual))}
    found.write(
        ["image", "known pixels", *ENCODERS],
        differences=[(other, ALL, perceptual) for other in (NO_LATENT, NO_PERCEPTUAL)],
        paper=quoted if study.published == "progan church" else None,
    )
