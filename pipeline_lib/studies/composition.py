"""Automatic collages of parts of several images, and what makes whole images of them (paper 4.1, Table 3, Fig. 17)."""

from __future__ import annotations

import numpy as np
import torch

from pipeline_lib.evaluation.features import extract_features, features_of
from pipeline_lib.evaluation.frechet import frechet_distance
from pipeline_lib.evaluation.prdc import density_and_coverage
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.imaging.transfer import as_pixels, at_once
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.networks.perceptual import load_perceptual
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.collages import as_rectangles, blend_layers, draw_collages, fill, lay, masks_of_parts
from pipeline_lib.studies.study import Findings, Metrics, Study, as_images, groups_of

SAMPLES, RECONSTRUCTIONS, COLLAGE, FILLED, POISSON, RGB, RGB_FILLED, ALIKE, RGBM, BOXES, OF_BOXES = METHODS = (
    "samples", "reconstructions of samples", "collages", "collages, filled", "Poisson blending",
    "RGB inversion, short training", "RGB inversion, filled, short training", "RGBM inversion, short training",
    "RGBM inversion", "collages of rectangles", "RGBM inversion of rectangles",
)  # fmt: skip
INVERTED = RECONSTRUCTIONS, RGB, RGB_FILLED, ALIKE, RGBM, OF_BOXES
#: What is expected to be farther from real images than what, in pairs.
ORDERINGS = (COLLAGE, RGBM), (POISSON, RGBM), (RGB, ALIKE), (RGB_FILLED, ALIKE), (BOXES, OF_BOXES)
FRECHET, DENSITY, L1 = "Fréchet distance", "density", "masked L1"


@torch.no_grad()
@stage(revision=4)
def study_composition(*, study: Study, device: torch.device) -> None:
    """Make collages of one random sample for each part, and compare their quality with that of what is made of them.

    Every figure but the masked L1 is the mean over `GROUPS` disjoint groups, since a distance belongs to a set. It
    depends on the size of the group, which is the same for all rows.

    Args:
        study: with samples of the generator, held-out images, and encoders with and without a mask channel.
        device: where to compute.
    """
    image_ids, pixels = study.read(study.samples)
    inverter = study.inverter(device)
    rgb, alike = (
        Inverter(path, study.generator, device, inverter.precision, compile=False)
        for path in (study.rgb, study.all_losses)
    )
    extractor = load_perceptual("alex")
    features: dict[str, list[np.ndarray]] = {name: [] for name in METHODS}
    found = Findings(study)
    masks = masks_of_parts(study.sample_parts, study.names, pixels.shape[1])
    for numbers in study.progress(range(study.count), at_once(pixels.shape[1])):
        layers = draw_collages(image_ids, pixels, masks, numbers, study.study, study.seed, device)
        collage, known = lay(layers)
        whole, everywhere = as_images(pixels[numbers], device), torch.ones_like(known)
        filled = fill(collage, known, layers)
        boxes, of_boxes = lay(as_rectangles(layers))
        images = {
            SAMPLES: whole,
            RECONSTRUCTIONS: inverter(whole, everywhere),
            COLLAGE: collage,
            FILLED: filled,
            POISSON: blend_layers(layers),
            RGB: rgb(collage, known),
            RGB_FILLED: rgb(filled, known),
            ALIKE: alike(collage, known),
            RGBM: inverter(collage, known),
            BOXES: boxes,
            OF_BOXES: inverter(boxes, of_boxes),
        }
        sources = {RECONSTRUCTIONS: (whole, everywhere), OF_BOXES: (boxes, of_boxes)}
        for name in INVERTED:
            wanted, seen = sources.get(name, (collage, known))
            found.add(name, {L1: masked_l1(wanted, images[name], seen)})
        for name, batch in images.items():
            features[name].append(features_of(as_pixels(batch).cpu().numpy(), extractor, device))
        found.show([images[name] for name in METHODS[2:]])
    reference = extract_features(study.held_out, extractor, device, limit=study.evaluate.images, cache=study.cache)
    metrics: Metrics = {}
    for name, batches in features.items():
        metrics |= _quality(name, np.concatenate(batches), reference, device)
    found.write(
        METHODS[2:],
        metrics | found.metrics,
        differences=[(*pair, metric) for pair in ORDERINGS for metric in (FRECHET, DENSITY)],
        precision=inverter.precision,
    )


def _quality(name: str, features: np.ndarray, reference: np.ndarray, device: torch.device) -> Metrics:
    """Return Fréchet distance, density and coverage of each group of a set, (GROUPS,)."""
    groups = groups_of(features)
    dense = [density_and_coverage(reference, group, device=device) for group in groups]
    return {
        (name, FRECHET): np.array([frechet_distance(reference, group) for group in groups]),
        (name, DENSITY): np.array([found.density for found in dense]),
        (name, "coverage"): np.array([found.coverage for found in dense]),
    }
