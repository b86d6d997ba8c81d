"""Automatic collages of parts of several images, and what makes whole images of them (paper 4.1, Table 3, Fig. 17)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config import Evaluate, PrecisionChoice, Studies
from pipeline_lib.data.shards import read_shards
from pipeline_lib.evaluation.features import extract_features, features_of
from pipeline_lib.evaluation.frechet import frechet_distance
from pipeline_lib.evaluation.prdc import density_and_coverage
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.imaging.transfer import as_pixels, at_once, to_float
from pipeline_lib.networks.inversion import Inverter, open_inverter
from pipeline_lib.networks.perceptual import load_perceptual
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.progress import Progress
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.collages import as_rectangles, blend_layers, draw_collages, fill, lay
from pipeline_lib.studies.rows import groups_of, mean_row, over, write_arrays, write_rows

STUDY = "composition"
SAMPLES, RECONSTRUCTIONS, COLLAGE, FILLED, POISSON, RGB, RGB_FILLED, ALIKE, RGBM, BOXES, OF_BOXES = METHODS = (
    "samples", "reconstructions of samples", "collages", "collages, filled", "Poisson blending",
    "RGB inversion, short training", "RGB inversion, filled, short training", "RGBM inversion, short training",
    "RGBM inversion", "collages of rectangles", "RGBM inversion of rectangles",
)  # fmt: skip
INVERTED = RECONSTRUCTIONS, RGB, RGB_FILLED, ALIKE, RGBM, OF_BOXES
#: What is expected to be farther from real images than what, in pairs.
ORDERINGS = (COLLAGE, RGBM), (POISSON, RGBM), (RGB, ALIKE), (RGB_FILLED, ALIKE), (BOXES, OF_BOXES)
FRECHET, DENSITY = "Fréchet distance", "density"
SHOWN = 6  # collages in the figure


@torch.no_grad()
@stage(revision=3)
def study_composition(
    *,
    samples: list[Path],
    parts: Path,
    held_out: list[Path],
    encoder: Path,
    rgb: Path,
    alike: Path,
    generator: Path,
    precision: Path,
    names: list[str],
    settings: Studies,
    evaluate: Evaluate,
    inversion: PrecisionChoice,
    run: str,
    seed: int,
    cache: Path,
    table: Path,
    pictures: Path,
    device: torch.device,
) -> None:
    """Make collages of one random sample for each part, and compare their quality with that of what is made of them.

    Every figure but the masked L1 is the mean over `GROUPS` disjoint groups, since a distance belongs to a set. It
    depends on the size of the group, which is the same for all rows.

    Args:
        samples: shards of the generator's samples, which parts come from.
        parts: their table of parts.
        held_out: shards of real images, the reference of quality.
        encoder: weight file of the run's encoder.
        rgb: weight file of an encoder without a mask channel, to which holes are grey.
        alike: weight file of one with it, trained as long as that.
        generator: weight file.
        precision: report of the encoder, with the precision of the inversion.
        names: names of the parts from back to front, the background first.
        settings: the config section.
        evaluate: the config section with the number of reference images and the confidence level.
        inversion: precision in the config.
        run: name of the run, stored in the file.
        seed: seed of the run.
        cache: folder of cached features.
        table: table to write, with a row for each method and metric.
        pictures: NPZ to write, with the first collages for the figure.
        device: where to compute.

    Raises:
        DataError: fewer samples than collages.
    """
    count = settings.composition.collages
    image_ids, pixels = read_shards(samples)
    if len(image_ids) < count:
        raise DataError(
            f"`studies.composition.collages`: {count}, but there are only {len(image_ids)} samples to compare with; "
            "use fewer, or increase `sample.images`"
        )
    together = at_once(pixels.shape[1])
    inverter = open_inverter(encoder, generator, device, inversion, precision, compile=False)
    short = {path: Inverter(path, generator, device, inverter.precision, compile=False) for path in (rgb, alike)}
    extractor = load_perceptual("alex")
    features: dict[str, list[np.ndarray]] = {name: [] for name in METHODS}
    shown: dict[str, np.ndarray] = {}
    distances: dict[str, list[Tensor]] = {name: [] for name in INVERTED}
    with Progress(f"study_{STUDY}", count) as progress:
        for layers in draw_collages(image_ids, pixels, parts, names, count, STUDY, seed, device, together):
            collage, known = lay(layers)
            rows = slice(progress.done, progress.done + len(collage))
            whole = to_float(torch.from_numpy(pixels[rows]).permute(0, 3, 1, 2), device)
            everywhere = torch.ones_like(known)
            filled = fill(collage, known, layers)
            boxes, of_boxes = lay(as_rectangles(layers))
            images = {
                SAMPLES: whole,
                RECONSTRUCTIONS: inverter(whole, everywhere),
                COLLAGE: collage,
                FILLED: filled,
                POISSON: blend_layers(layers),
                RGB: short[rgb](collage, known),
                RGB_FILLED: short[rgb](filled, known),
                ALIKE: short[alike](collage, known),
                RGBM: inverter(collage, known),
                BOXES: boxes,
                OF_BOXES: inverter(boxes, of_boxes),
            }
            sources = {RECONSTRUCTIONS: (whole, everywhere), OF_BOXES: (boxes, of_boxes)}
            for name in INVERTED:
                wanted = sources.get(name, (collage, known))
                distances[name].append(masked_l1(wanted[0], images[name], wanted[1]).cpu())
            for name, batch in images.items():
                stored = as_pixels(batch).cpu().numpy()
                features[name].append(features_of(stored, extractor, device))
                shown[name] = np.concatenate([shown.get(name, stored[:0]), stored])[:SHOWN]
            progress.advance(len(collage))
    reference = extract_features(held_out, extractor, device, limit=evaluate.images, cache=cache)
    metrics = {}
    for name, batches in features.items():
        metrics |= _measure(name, np.concatenate(batches), reference, device)
    metrics |= {(name, "masked L1"): torch.cat(values).numpy() for name, values in distances.items()}
    rows_made = [
        mean_row(STUDY, name, metric, values, evaluate.confidence) for (name, metric), values in metrics.items()
    ]
    rows_made += [
        mean_row(STUDY, over(other, ours), metric, metrics[other, metric] - metrics[ours, metric], evaluate.confidence)
        for other, ours in ORDERINGS
        for metric in (FRECHET, DENSITY)
    ]
    models = [encoder, rgb, alike, generator]
    write_rows(table, rows_made, settings.composition, run, models, inverter.precision)
    columns = [name for name in METHODS if name not in (SAMPLES, RECONSTRUCTIONS)]
    write_arrays(pictures, columns=np.array(columns), pixels=np.stack([shown[name] for name in columns], axis=1))


def _measure(
    name: str, features: np.ndarray, reference: np.ndarray, device: torch.device
) -> dict[tuple[str, str], np.ndarray]:
    """Return Fréchet distance, density and coverage of each group of a set, (GROUPS,)."""
    groups = groups_of(features)
    dense = [density_and_coverage(reference, group, device=device) for group in groups]
    return {
        (name, FRECHET): np.array([frechet_distance(reference, group) for group in groups]),
        (name, DENSITY): np.array([found.density for found in dense]),
        (name, "coverage"): np.array([found.coverage for found in dense]),
    }
