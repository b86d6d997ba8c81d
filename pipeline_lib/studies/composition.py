"""Automatic collages of parts of several images, and what makes whole images of them (paper 4.1, Table 3, Fig. 17)."""

from __future__ import annotations

import torch

from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.imaging.transfer import as_pixels, at_once
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.studies.collages import PartImages, as_rectangles, blend_layers, fill, lay
from pipeline_lib.studies.study import COVERAGE, DENSITY, FRECHET, Findings, Realism, Study

SAMPLES, RECONSTRUCTIONS, COLLAGE, FILLED, POISSON, RGB, RGB_FILLED, ALIKE, RGBM, BOXES, OF_BOXES = METHODS = (
    "samples", "reconstructions of samples", "collages", "collages, filled", "Poisson blending",
    "RGB inversion, short training", "RGB inversion, filled, short training", "RGBM inversion, short training",
    "RGBM inversion", "collages of rectangles", "RGBM inversion of rectangles",
)  # fmt: skip
INVERTED = RECONSTRUCTIONS, RGB, RGB_FILLED, ALIKE, RGBM, OF_BOXES
#: What is expected to be farther from real images than what, in pairs.
ORDERINGS = (COLLAGE, RGBM), (POISSON, RGBM), (RGB, ALIKE), (RGB_FILLED, ALIKE), (BOXES, OF_BOXES)
L1 = "masked L1"


def measure(study: Study, device: torch.device) -> None:
    """Make collages of one random sample for each part, and compare their quality with that of what is made of them.

    Every figure but the masked L1 is the mean over `GROUPS` disjoint groups, since a distance belongs to a set. It
    depends on the size of the group, which is the same for all rows.
    """
    samples = PartImages(study.samples, study.sample_parts, study.names)
    inverter = study.inverter(device)
    rgb, alike = (
        Inverter(path, study.generator, device, inverter.precision, compile=False)
        for path in (study.rgb, study.all_losses)
    )
    found, realism = Findings(study), Realism(study, device)
    for numbers in study.progress(range(study.count(len(samples.image_ids))), at_once(samples.side)):
        layers = samples.draw(numbers, study.study, study.seed, device)
        collage, known = lay(layers)
        whole, everywhere = samples.images(numbers, device), torch.ones_like(known)
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
            realism.add(name, as_pixels(batch).cpu().numpy())
        found.show([images[name] for name in METHODS[2:]])
    found.values = realism.by_group(FRECHET, DENSITY, COVERAGE) | found.values
    found.write(METHODS[2:], differences=[(*pair, metric) for pair in ORDERINGS for metric in (FRECHET, DENSITY)])
