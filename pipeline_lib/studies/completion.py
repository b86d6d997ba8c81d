"""Holes in real images, filled by an encoder that knows of them and by one that does not (paper A.2.1, Fig. 9)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config import Encoder, Evaluate, Studies
from pipeline_lib.evaluation.features import extract_features, features_of
from pipeline_lib.evaluation.frechet import frechet_distance
from pipeline_lib.imaging.distances import masked_l1
from pipeline_lib.imaging.transfer import as_pixels
from pipeline_lib.networks.distances import perceptual_distances
from pipeline_lib.networks.inversion import Inverter
from pipeline_lib.networks.perceptual import load_perceptual
from pipeline_lib.runtime.revisions import stage
from pipeline_lib.studies.masked import masked_images
from pipeline_lib.studies.rows import groups_of, mean_row, over, write_arrays, write_rows

STUDY = "completion"
HOLES, RGB, RGBM = METHODS = "images with holes", "RGB encoder", "RGBM encoder"
FRECHET, UNKNOWN, PERCEPTUAL = "Fréchet distance", "L1 in the holes", "perceptual distance"
SHOWN = 6  # images in the figure


@torch.no_grad()
@stage(revision=1)
def study_completion(
    *,
    images: list[Path],
    held_out: list[Path],
    rgb: Path,
    rgbm: Path,
    generator: Path,
    like: Encoder,
    settings: Studies,
    evaluate: Evaluate,
    run: str,
    seed: int,
    cache: Path,
    table: Path,
    pictures: Path,
    device: torch.device,
) -> None:
    """Blank some pixels of real images, and compare what encoders with and without a mask channel make of the rest.

    The Fréchet distance to other real images is measured in disjoint groups of a fifth of them, all else on each image.

    Args:
        images: shards of real images. The encoders have seen only generated ones.
        held_out: shards of other real images, the reference of the Fréchet distance.
        rgb: weight file of an encoder without a mask channel, to which holes are grey.
        rgbm: weight file of one with it, trained alike.
        generator: weight file.
        like: config section of the run's encoder, with the masks.
        settings: the config section.
        evaluate: the config section with the number of reference images and the confidence level.
        run: name of the run, stored in the file.
        seed: seed of the run.
        cache: folder of cached features.
        table: table to write, with rows for each method, and how much larger the RGB encoder's figures are.
        pictures: NPZ to write, with the first images for the figure.
        device: where to compute.

    Raises:
        DataError: fewer images than asked for.
    """
    how = settings.completion
    extractor = load_perceptual("alex").to(device)
    inverters = {RGB: Inverter(rgb, generator, device, compile=False)}
    inverters[RGBM] = Inverter(rgbm, generator, device, compile=False)
    errors: dict[str, list[Tensor]] = {name: [] for name in METHODS}
    features: dict[str, list[np.ndarray]] = {name: [] for name in METHODS}
    shown = None
    for batch, known in masked_images(images, how.images, like.mask, "studies.completion.images", seed, device):
        made = {HOLES: batch * known} | {name: inverter(batch * known, known) for name, inverter in inverters.items()}
        for name, outputs in made.items():
            measured = masked_l1(batch, outputs, 1 - known), perceptual_distances(extractor, batch, outputs)
            errors[name].append(torch.stack(measured, dim=1).cpu())
            features[name].append(features_of(as_pixels(outputs).cpu().numpy(), extractor, device))
        if shown is None:
            shown = np.stack([as_pixels(part[:SHOWN]).cpu().numpy() for part in (batch, *made.values())], axis=1)
    reference = extract_features(held_out, extractor, device, limit=evaluate.images, cache=cache)
    metrics: dict[tuple[str, str], np.ndarray] = {}
    for name in METHODS:
        groups = groups_of(np.concatenate(features[name]))
        metrics[name, FRECHET] = np.array([frechet_distance(reference, group) for group in groups])
        on_images = torch.cat(errors[name]).numpy()
        on_images = on_images[~np.isnan(on_images).any(axis=1)]  # without the images of which every pixel is known
        metrics |= {(name, metric): on_images[:, column] for column, metric in enumerate((UNKNOWN, PERCEPTUAL))}
    rows = [mean_row(STUDY, name, metric, values, evaluate.confidence) for (name, metric), values in metrics.items()]
    rows += [
        mean_row(STUDY, over(RGB, RGBM), metric, metrics[RGB, metric] - metrics[RGBM, metric], evaluate.confidence)
        for metric in (FRECHET, UNKNOWN, PERCEPTUAL)
    ]
    write_rows(table, rows, how, run, [rgb, rgbm, generator], "float32")
    write_arrays(pictures, columns=np.array(["image", *METHODS]), pixels=shown)
