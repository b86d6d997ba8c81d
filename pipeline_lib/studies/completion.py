"""Holes in real images, filled by an encoder that knows of them and by one that does not (paper A.2.1, Fig. 9)."""

from __future__ import annotations

import torch

from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.imaging.transfer import as_pixels
from pipeline_lib.networks.distances import perceptual_distances
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.studies.study import FRECHET, Findings, Realism, Study

HOLES, RGB, RGBM = METHODS = "images with holes", "RGB encoder", "RGBM encoder"
UNKNOWN, PERCEPTUAL = "L1 in the holes", "perceptual distance"


def measure(study: Study, device: torch.device) -> None:
    """Blank some pixels of real images, and compare what encoders with and without a mask channel make of the rest."""
    files = {RGB: study.rgb, RGBM: study.all_losses}
    inverters = {name: Inverter(path, study.generator, device, compile=False) for name, path in files.items()}
    found, realism = Findings(study), Realism(study, device)
    for images, known in study.masked(study.images, device):
        holes = images * known
        made = {HOLES: holes} | {name: inverter(holes, known) for name, inverter in inverters.items()}
        for name, outputs in made.items():
            distances = perceptual_distances(realism.extractor, images, outputs)
            found.add(name, {UNKNOWN: masked_l1(images, outputs, 1 - known), PERCEPTUAL: distances})
            realism.add(name, as_pixels(outputs).cpu().numpy())
        found.show([images, *made.values()])
    found.values |= realism.by_group(FRECHET)
    found.write(["image", *METHODS], differences=[(RGB, RGBM, metric) for metric in (FRECHET, UNKNOWN, PERCEPTUAL)])
