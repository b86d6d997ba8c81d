"""Holes in real images, filled by an encoder that knows of them and by one that does not (paper A.2.1, Fig. 9)."""

from __future__ import annotations

import numpy as np
import torch

from pipeline_lib.evaluation.features import extract_features, features_of
from pipeline_lib.evaluation.frechet import frechet_distance
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.imaging.transfer import as_pixels
from pipeline_lib.networks.distances import perceptual_distances
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.networks.perceptual import load_perceptual
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.study import Findings, Study, groups_of

HOLES, RGB, RGBM = METHODS = "images with holes", "RGB encoder", "RGBM encoder"
FRECHET, UNKNOWN, PERCEPTUAL = "Fréchet distance", "L1 in the holes", "perceptual distance"


@torch.no_grad()
@stage(revision=2)
def study_completion(*, study: Study, device: torch.device) -> None:
    """Blank some pixels of real images, and compare what encoders with and without a mask channel make of the rest.

    The Fréchet distance to other real images is measured in disjoint groups of a fifth of them, all else on each image.

    Args:
        study: with real images, others that are held out, and two encoders, which have seen generated images alone.
        device: where to compute.
    """
    extractor = load_perceptual("alex").to(device)
    files = {RGB: study.rgb, RGBM: study.all_losses}
    inverters = {name: Inverter(path, study.generator, device, compile=False) for name, path in files.items()}
    found = Findings(study)
    features: dict[str, list[np.ndarray]] = {name: [] for name in METHODS}
    for images, known in study.masked(study.images, device):
        holes = images * known
        made = {HOLES: holes} | {name: inverter(holes, known) for name, inverter in inverters.items()}
        for name, outputs in made.items():
            distances = perceptual_distances(extractor, images, outputs)
            found.add(name, {UNKNOWN: masked_l1(images, outputs, 1 - known), PERCEPTUAL: distances})
            features[name].append(features_of(as_pixels(outputs).cpu().numpy(), extractor, device))
        found.show([images, *made.values()])
    reference = extract_features(study.held_out, extractor, device, limit=study.evaluate.images, cache=study.cache)
    metrics = {}
    for name in METHODS:
        groups = groups_of(np.concatenate(features[name]))
        metrics[name, FRECHET] = np.array([frechet_distance(reference, group) for group in groups])
    differences = [(RGB, RGBM, metric) for metric in (FRECHET, UNKNOWN, PERCEPTUAL)]
    found.write(["image", *METHODS], metrics | found.metrics, differences=differences)
